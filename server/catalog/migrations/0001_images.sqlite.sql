-- Images, what hangs on them, and the indexes of the listings.

CREATE TABLE images (
    key              INTEGER PRIMARY KEY,
    id               TEXT NOT NULL,
    id_lower         TEXT NOT NULL UNIQUE,  -- the id in lower case: taken for ever, whoever writes it how
    version          INTEGER NOT NULL,
    status           TEXT NOT NULL,
    live             INTEGER NOT NULL,      -- whether the status is another than deleted
    visibility       TEXT NOT NULL,
    protected        INTEGER NOT NULL,
    hidden           INTEGER NOT NULL,
    owner            TEXT,
    name             TEXT,
    disk_format      TEXT,
    container_format TEXT,
    min_ram          INTEGER NOT NULL,
    min_disk         INTEGER NOT NULL,
    size             INTEGER,
    virtual_size     INTEGER,
    checksum         TEXT,
    hash_algorithm   TEXT,
    hash_value       TEXT,
    parent           TEXT,
    delta_bytes      INTEGER,
    chain_depth      INTEGER,
    tree_hash        TEXT,
    created_at       INTEGER NOT NULL,      -- microseconds since 1970
    updated_at       INTEGER NOT NULL
) STRICT;

-- A listing is made of scans of these, one for each kind of image that the caller may list. See db/listing.rs.
CREATE INDEX images_by_visibility ON images (visibility, hidden, created_at, id) WHERE live;
CREATE INDEX images_by_owner ON images (owner, visibility, hidden, created_at, id) WHERE live;
CREATE INDEX images_by_visibility_name ON images (visibility, hidden, coalesce(name, ''), created_at, id) WHERE live;
CREATE INDEX images_by_owner_name ON images (owner, visibility, hidden, coalesce(name, ''), created_at, id) WHERE live;
CREATE INDEX images_by_status ON images (status, created_at, id);
CREATE INDEX images_by_parent ON images (parent, created_at, id) WHERE parent IS NOT NULL;

CREATE TABLE image_tags (
    image INTEGER NOT NULL REFERENCES images (key),
    tag   TEXT NOT NULL,
    PRIMARY KEY (image, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE image_properties (
    image INTEGER NOT NULL REFERENCES images (key),
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (image, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE image_locations (
    image    INTEGER NOT NULL REFERENCES images (key),
    position INTEGER NOT NULL,
    url      TEXT NOT NULL,
    metadata TEXT NOT NULL,                 -- a JSON object of strings
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE image_members (
    image            INTEGER NOT NULL REFERENCES images (key),
    project          TEXT NOT NULL,
    status           TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    image_created_at INTEGER NOT NULL,      -- those of the image, which never change: so that an index has the order of listings
    image_id         TEXT NOT NULL,
    PRIMARY KEY (image, project)
) STRICT, WITHOUT ROWID;

CREATE INDEX image_members_by_project ON image_members (project, status, image_created_at, image_id);
