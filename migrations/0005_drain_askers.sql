-- Whose wish a drain is, for the history of the rooms that it hands over.
ALTER TABLE drain
    ADD COLUMN asked_by text NOT NULL DEFAULT 'operator' CHECK (asked_by IN ('operator', 'node'));
