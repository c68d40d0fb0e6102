-- What tells when a drain will be over.
ALTER TABLE drain
    -- How many seconds a room takes, as measured, from being handed over until the node has closed it. Null: none was seen to.
    ADD COLUMN leaving  double precision,
    -- When a room was last handed over.
    ADD COLUMN moved_at timestamptz;
