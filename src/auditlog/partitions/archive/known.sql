SELECT manifest_sha256
FROM logstore.retirements
WHERE archive_uri = %(uri)s AND manifest_sha256 IS NOT NULL
