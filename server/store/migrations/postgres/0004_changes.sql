-- A delisted instrument keeps its row: other tables may refer to it, and it may be listed again.
ALTER TABLE market_data
    ADD COLUMN delisted boolean NOT NULL DEFAULT false,
    ADD COLUMN changed_in bigint NOT NULL DEFAULT 0; -- transaction that last changed more than a price
CREATE INDEX market_data_changed ON market_data (changed_in);

-- Every server looks here every few seconds, so it sees changes by any writer.
CREATE FUNCTION market_data_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_in := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END $$;
CREATE TRIGGER market_data_listed BEFORE INSERT ON market_data
    FOR EACH ROW EXECUTE FUNCTION market_data_changed();
CREATE TRIGGER market_data_changed BEFORE UPDATE ON market_data FOR EACH ROW WHEN (
    (OLD.name, OLD.category, OLD.base_price, OLD.market_cap, OLD.price_decimals, OLD.made_up_price,
        OLD.delisted)
    IS DISTINCT FROM
    (NEW.name, NEW.category, NEW.base_price, NEW.market_cap, NEW.price_decimals, NEW.made_up_price,
        NEW.delisted)
) EXECUTE FUNCTION market_data_changed();
