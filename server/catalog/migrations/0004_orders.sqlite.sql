-- The indexes of listings in the other orders that can be asked for, as those by time and by name. See db/listing.rs.

CREATE INDEX images_by_visibility_status ON images (visibility, hidden, status, created_at, id) WHERE live;
CREATE INDEX images_by_owner_status ON images (owner, visibility, hidden, status, created_at, id) WHERE live;
CREATE INDEX images_by_visibility_container_format ON images (visibility, hidden, coalesce(container_format, ''), created_at, id) WHERE live;
CREATE INDEX images_by_owner_container_format ON images (owner, visibility, hidden, coalesce(container_format, ''), created_at, id) WHERE live;
CREATE INDEX images_by_visibility_disk_format ON images (visibility, hidden, coalesce(disk_format, ''), created_at, id) WHERE live;
CREATE INDEX images_by_owner_disk_format ON images (owner, visibility, hidden, coalesce(disk_format, ''), created_at, id) WHERE live;
CREATE INDEX images_by_visibility_size ON images (visibility, hidden, coalesce(size, 0), created_at, id) WHERE live;
CREATE INDEX images_by_owner_size ON images (owner, visibility, hidden, coalesce(size, 0), created_at, id) WHERE live;
CREATE INDEX images_by_visibility_id ON images (visibility, hidden, id) WHERE live;
CREATE INDEX images_by_owner_id ON images (owner, visibility, hidden, id) WHERE live;
CREATE INDEX images_by_visibility_updated_at ON images (visibility, hidden, updated_at, created_at, id) WHERE live;
CREATE INDEX images_by_owner_updated_at ON images (owner, visibility, hidden, updated_at, created_at, id) WHERE live;
