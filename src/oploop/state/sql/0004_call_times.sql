-- What steps of a delivery took, by app, object, operation and kind (single | batch | job): means in which the latest count most.
CREATE TABLE call_times (
    app      TEXT NOT NULL,
    object   TEXT NOT NULL,
    op       TEXT NOT NULL,
    kind     TEXT NOT NULL,
    seconds  DOUBLE PRECISION NOT NULL,
    calls    DOUBLE PRECISION NOT NULL,
    steps    INTEGER NOT NULL,
    PRIMARY KEY (app, object, op, kind)
);
