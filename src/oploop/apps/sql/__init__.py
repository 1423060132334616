"""What the apps for SQL databases with a DBAPI driver share: tables as streams and objects, reading, set-based writing.

An app adds an `Engine` (engine.py): how it connects, how its catalogue reads, how its types travel, what its errors mean.
"""
