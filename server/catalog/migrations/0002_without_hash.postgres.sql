-- What is to be hashed in the background: images whose bytes came as an increment, or are elsewhere. (The coalesce keeps SQLite
-- from taking the index by status instead, which has all other images with bytes as well.)

CREATE INDEX images_without_hash ON images (created_at, id)
    WHERE coalesce(status, '') IN ('active', 'deactivated') AND hash_value IS NULL;
