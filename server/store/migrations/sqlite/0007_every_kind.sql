-- Columns for instruments of every kind. Categories: 1 stock, 2 ETF, 3 index, 4 fund, 5 crypto, 6 currency pair, 7 future,
-- 8 option, 9 bond, 10 other. A fractional volume is a real number in the column of integers.
DROP TRIGGER market_data_listed;
DROP TRIGGER market_data_changed;
DROP TRIGGER market_data_first_price_listed;
DROP TRIGGER market_data_first_price;
ALTER TABLE market_data ADD COLUMN currency text NOT NULL DEFAULT 'USD'; -- ISO 4217, or the code of a crypto currency
ALTER TABLE market_data ADD COLUMN exchange text; -- MIC or name
ALTER TABLE market_data ADD COLUMN isin text;
ALTER TABLE market_data ADD COLUMN size_decimals integer NOT NULL DEFAULT 0;
ALTER TABLE market_data ADD COLUMN previous_close real;
ALTER TABLE market_data ADD COLUMN open real;
ALTER TABLE market_data ADD COLUMN high real;
ALTER TABLE market_data ADD COLUMN low real;
ALTER TABLE market_data ADD COLUMN bid real;
ALTER TABLE market_data ADD COLUMN ask real;
ALTER TABLE market_data ADD COLUMN bid_size real;
ALTER TABLE market_data ADD COLUMN ask_size real;
-- Prices of indices, futures, options, bonds and others may be zero or negative.
ALTER TABLE market_data ADD COLUMN signed_price real DEFAULT 0
    CHECK (signed_price >= 0 OR category NOT IN (1, 2, 4, 5, 6));
UPDATE market_data SET signed_price = base_price;
ALTER TABLE market_data DROP COLUMN base_price;
ALTER TABLE market_data RENAME COLUMN signed_price TO base_price;
CREATE TRIGGER market_data_first_price_listed AFTER INSERT ON market_data WHEN
    NEW.base_price = 0 AND (NEW.category IN (1, 2, 4, 5, 6) OR NEW.version = 1) OR NEW.base_price IS NULL
        AND typeof(NEW.last_quote) IN ('real', 'integer') AND NEW.last_quote BETWEEN -2000000000 AND 2000000000
        AND (NEW.last_quote > 0 OR NEW.last_quote < 0 AND NEW.category NOT IN (1, 2, 4, 5, 6))
BEGIN
    UPDATE market_data SET base_price = CASE
        WHEN typeof(NEW.last_quote) IN ('real', 'integer') AND NEW.last_quote BETWEEN -2000000000 AND 2000000000
        AND (NEW.last_quote > 0 OR NEW.last_quote < 0 AND NEW.category NOT IN (1, 2, 4, 5, 6))
        THEN last_quote WHEN category IN (1, 2, 4, 5, 6) THEN 0.01 ELSE 0 END
        WHERE id = NEW.id; END;
CREATE TRIGGER market_data_first_price AFTER UPDATE ON market_data WHEN
    NEW.base_price IS NULL
        AND typeof(NEW.last_quote) IN ('real', 'integer') AND NEW.last_quote BETWEEN -2000000000 AND 2000000000
        AND (NEW.last_quote > 0 OR NEW.last_quote < 0 AND NEW.category NOT IN (1, 2, 4, 5, 6))
BEGIN
    UPDATE market_data SET base_price = last_quote WHERE id = NEW.id; END;
-- As before.
CREATE TRIGGER market_data_listed AFTER INSERT ON market_data BEGIN
    UPDATE market_data SET changed_in = 0
        WHERE changed_in >= iif((SELECT max(changed_in) FROM market_data WHERE changed_in < 9007199254740990)
            >= 9007199254740989, 0, 9007199254740990);
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
CREATE TRIGGER market_data_changed AFTER UPDATE ON market_data WHEN
    (OLD.name, OLD.category, OLD.base_price, OLD.market_cap, OLD.price_decimals, OLD.made_up_price, OLD.delisted,
        OLD.currency, OLD.exchange, OLD.isin, OLD.size_decimals, OLD.previous_close)
    IS NOT
    (NEW.name, NEW.category, NEW.base_price, NEW.market_cap, NEW.price_decimals, NEW.made_up_price, NEW.delisted,
        NEW.currency, NEW.exchange, NEW.isin, NEW.size_decimals, NEW.previous_close)
    OR OLD.version IS NEW.version
        AND (OLD.last_quote, OLD.volume, OLD.quoted_at) IS NOT (NEW.last_quote, NEW.volume, NEW.quoted_at)
BEGIN
    UPDATE market_data SET changed_in = 0
        WHERE changed_in >= iif((SELECT max(changed_in) FROM market_data WHERE changed_in < 9007199254740990)
            >= 9007199254740989, 0, 9007199254740990);
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
