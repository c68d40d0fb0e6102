-- What a room asked of its node when it was placed, for when it is moved. Null: any node will do.
ALTER TABLE room ADD COLUMN wish jsonb;
