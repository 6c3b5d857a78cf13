-- The identities that begin with a text; two are enough to know that it is not one letter's.
SELECT letter_id FROM logstore.dead_letters
WHERE starts_with(letter_id::text, %(beginning)s) LIMIT 2
