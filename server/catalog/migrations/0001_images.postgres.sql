-- Images, what hangs on them, and the indexes of the listings.

CREATE TABLE images (
    key              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id               TEXT COLLATE "C" NOT NULL,
    id_lower         TEXT COLLATE "C" NOT NULL UNIQUE,  -- the id in lower case: taken for ever, whoever writes it how
    version          BIGINT NOT NULL,
    status           TEXT COLLATE "C" NOT NULL,
    live             BOOLEAN NOT NULL,      -- whether the status is another than deleted
    visibility       TEXT COLLATE "C" NOT NULL,
    protected        BOOLEAN NOT NULL,
    hidden           BOOLEAN NOT NULL,
    owner            TEXT COLLATE "C",
    name             TEXT COLLATE "C",
    disk_format      TEXT COLLATE "C",
    container_format TEXT COLLATE "C",
    min_ram          BIGINT NOT NULL,
    min_disk         BIGINT NOT NULL,
    size             BIGINT,
    virtual_size     BIGINT,
    checksum         TEXT COLLATE "C",
    hash_algorithm   TEXT COLLATE "C",
    hash_value       TEXT COLLATE "C",
    parent           TEXT COLLATE "C",
    delta_bytes      BIGINT,
    chain_depth      BIGINT,
    tree_hash        TEXT COLLATE "C",
    created_at       BIGINT NOT NULL,      -- microseconds since 1970
    updated_at       BIGINT NOT NULL
);

-- A listing is made of scans of these, one for each kind of image that the caller may list. See db/listing.rs.
CREATE INDEX images_by_visibility ON images (visibility, hidden, created_at, id) WHERE live;
CREATE INDEX images_by_owner ON images (owner, visibility, hidden, created_at, id) WHERE live;
CREATE INDEX images_by_visibility_name ON images (visibility, hidden, coalesce(name, ''), created_at, id) WHERE live;
CREATE INDEX images_by_owner_name ON images (owner, visibility, hidden, coalesce(name, ''), created_at, id) WHERE live;
CREATE INDEX images_by_status ON images (status, created_at, id);
CREATE INDEX images_by_parent ON images (parent, created_at, id) WHERE parent IS NOT NULL;

CREATE TABLE image_tags (
    image BIGINT NOT NULL REFERENCES images (key),
    tag   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (image, tag)
);

CREATE TABLE image_properties (
    image BIGINT NOT NULL REFERENCES images (key),
    name  TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (image, name)
);

CREATE TABLE image_locations (
    image    BIGINT NOT NULL REFERENCES images (key),
    position BIGINT NOT NULL,
    url      TEXT COLLATE "C" NOT NULL,
    metadata TEXT COLLATE "C" NOT NULL,                 -- a JSON object of strings
    PRIMARY KEY (image, position)
);

CREATE TABLE image_members (
    image            BIGINT NOT NULL REFERENCES images (key),
    project          TEXT COLLATE "C" NOT NULL,
    status           TEXT COLLATE "C" NOT NULL,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    image_created_at BIGINT NOT NULL,      -- those of the image, which never change: so that an index has the order of listings
    image_id         TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (image, project)
);

CREATE INDEX image_members_by_project ON image_members (project, status, image_created_at, image_id);
