-- Columns for instruments of every kind. Categories: 1 stock, 2 ETF, 3 index, 4 fund, 5 crypto, 6 currency pair, 7 future,
-- 8 option, 9 bond, 10 other.
ALTER TABLE market_data
    ADD COLUMN currency varchar(50) NOT NULL DEFAULT 'USD', -- ISO 4217, or the code of a crypto currency
    ADD COLUMN exchange varchar(50), -- MIC or name
    ADD COLUMN isin varchar(12),
    ADD COLUMN size_decimals smallint NOT NULL DEFAULT 0,
    ADD COLUMN previous_close double precision,
    ADD COLUMN open double precision,
    ADD COLUMN high double precision,
    ADD COLUMN low double precision,
    ADD COLUMN bid double precision,
    ADD COLUMN ask double precision,
    ADD COLUMN bid_size double precision,
    ADD COLUMN ask_size double precision,
    -- The part of the volume below one. `volume` keeps its type, as servers of earlier versions read it.
    ADD COLUMN volume_fraction double precision NOT NULL DEFAULT 0;

-- Prices of indices, futures, options, bonds and others may be zero or negative.
ALTER TABLE market_data
    DROP CONSTRAINT market_data_base_price_positive,
    ADD CONSTRAINT market_data_base_price_positive CHECK (base_price > 0 OR category NOT IN (1, 2, 4, 5, 6));
CREATE OR REPLACE FUNCTION market_data_base_price() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    signed boolean := NEW.category NOT IN (1, 2, 4, 5, 6);
    priced boolean := NEW.last_quote BETWEEN -2000000000 AND 2000000000
        AND (NEW.last_quote > 0 OR signed AND NEW.last_quote < 0);
    unnamed boolean := NEW.base_price = 0 AND (NOT signed OR TG_OP = 'INSERT' AND NEW.version = 1);
BEGIN
    IF priced AND (NEW.base_price IS NULL OR unnamed) THEN
        NEW.base_price := NEW.last_quote;
    ELSIF unnamed AND NOT signed THEN
        NEW.base_price := 0.01;
    END IF;
    RETURN NEW;
END $$;

DROP TRIGGER market_data_changed ON market_data;
CREATE TRIGGER market_data_changed BEFORE UPDATE ON market_data FOR EACH ROW WHEN (
    (OLD.name, OLD.category, OLD.base_price, OLD.market_cap, OLD.price_decimals, OLD.made_up_price,
        OLD.delisted, OLD.currency, OLD.exchange, OLD.isin, OLD.size_decimals, OLD.previous_close)
    IS DISTINCT FROM
    (NEW.name, NEW.category, NEW.base_price, NEW.market_cap, NEW.price_decimals, NEW.made_up_price,
        NEW.delisted, NEW.currency, NEW.exchange, NEW.isin, NEW.size_decimals, NEW.previous_close)
    OR OLD.version IS NOT DISTINCT FROM NEW.version
        AND (OLD.last_quote, OLD.volume, OLD.quoted_at) IS DISTINCT FROM (NEW.last_quote, NEW.volume, NEW.quoted_at)
) EXECUTE FUNCTION market_data_changed();
