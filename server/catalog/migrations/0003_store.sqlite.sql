-- The store that keeps the bytes of these images, once a server has worked with it. At most one row.

CREATE TABLE catalog_store (
    place INTEGER NOT NULL PRIMARY KEY CHECK (place = 1),
    id    TEXT NOT NULL                     -- the store's identity, in hexadecimal
) STRICT;
