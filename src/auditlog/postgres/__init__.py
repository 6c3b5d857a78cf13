"""How a database comes to be: the embedded server, the migrations, and the doctor.

Everything here blocks. An event loop runs it in a thread: `asyncio.to_thread(migrate, dsn)`.
"""
