//! What a user of images does: put, get, diff, accounting, repair.
