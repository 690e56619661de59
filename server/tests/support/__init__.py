"""What the tests of the catalog server share: the server itself, a plain HTTP client, images, and a proxy that counts."""
