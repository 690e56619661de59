-- The index of listings by the time of the last change, as those by time and by name: for who asks what changed. See db/listing.rs.

CREATE INDEX images_by_visibility_updated_at ON images (visibility, hidden, updated_at, created_at, id) WHERE live;
CREATE INDEX images_by_owner_updated_at ON images (owner, visibility, hidden, updated_at, created_at, id) WHERE live;
