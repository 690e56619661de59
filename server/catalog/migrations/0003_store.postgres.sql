-- The store that keeps the bytes of these images, once a server has worked with it. At most one row.

CREATE TABLE catalog_store (
    place BIGINT NOT NULL PRIMARY KEY CHECK (place = 1),
    id    TEXT COLLATE "C" NOT NULL        -- the store's identity, in hexadecimal
);
