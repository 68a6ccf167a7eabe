-- An instrument may wait for its first price: then its base price is NULL, and its last quote 0. The first price that
-- anybody writes becomes the base price. A row that does not name the column (0) gets one as before.
CREATE OR REPLACE FUNCTION market_data_base_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.base_price IS NULL OR NEW.base_price = 0) AND NEW.last_quote > 0 AND NEW.last_quote <= 2000000000 THEN
        NEW.base_price := NEW.last_quote;
    ELSIF NEW.base_price = 0 THEN
        NEW.base_price := 0.01;
    END IF;
    RETURN NEW;
END $$;
ALTER TABLE market_data ALTER COLUMN base_price DROP NOT NULL, ALTER COLUMN base_price SET DEFAULT 0;

-- A price counts as changed if its version did not change: then no server wrote it.
DROP TRIGGER market_data_changed ON market_data;
CREATE TRIGGER market_data_changed BEFORE UPDATE ON market_data FOR EACH ROW WHEN (
    (OLD.name, OLD.category, OLD.base_price, OLD.market_cap, OLD.price_decimals, OLD.made_up_price,
        OLD.delisted)
    IS DISTINCT FROM
    (NEW.name, NEW.category, NEW.base_price, NEW.market_cap, NEW.price_decimals, NEW.made_up_price,
        NEW.delisted)
    OR OLD.version IS NOT DISTINCT FROM NEW.version
        AND (OLD.last_quote, OLD.volume, OLD.quoted_at) IS DISTINCT FROM (NEW.last_quote, NEW.volume, NEW.quoted_at)
) EXECUTE FUNCTION market_data_changed();
