-- A word that an app keeps with a call under way, by which it can be asked after a crash what became of it: a job's id.
ALTER TABLE steps ADD COLUMN note TEXT;
