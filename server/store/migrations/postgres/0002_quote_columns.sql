-- Columns that a quote needs beside the last price.
ALTER TABLE market_data
    ADD COLUMN base_price numeric,
    ADD COLUMN market_cap bigint,
    ADD COLUMN price_decimals smallint NOT NULL DEFAULT 2,
    ADD COLUMN made_up_price boolean NOT NULL DEFAULT false,
    ADD COLUMN volume bigint NOT NULL DEFAULT 0,
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    ADD COLUMN quoted_at bigint NOT NULL DEFAULT 0, -- microseconds since the Unix epoch, 0 for never
    ADD COLUMN watched_at timestamptz;

-- Rows of another service have no base price: their last price becomes it.
CREATE FUNCTION market_data_base_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.base_price := COALESCE(NEW.base_price, NULLIF(GREATEST(NEW.last_quote, 0), 0), 0.01);
    RETURN NEW;
END $$;
CREATE TRIGGER market_data_base_price BEFORE INSERT OR UPDATE ON market_data
    FOR EACH ROW EXECUTE FUNCTION market_data_base_price();
UPDATE market_data SET base_price = NULL WHERE base_price IS NULL;

ALTER TABLE market_data
    ALTER COLUMN base_price SET NOT NULL,
    ADD CONSTRAINT market_data_base_price_positive CHECK (base_price > 0);
CREATE INDEX market_data_watched ON market_data (watched_at DESC NULLS LAST);
