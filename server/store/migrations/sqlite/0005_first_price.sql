-- An instrument may wait for its first price: then its base price is NULL, and its last quote 0. The first price that
-- anybody writes becomes the base price. A row that does not name the column (0) gets a base price at once.
DROP TRIGGER market_data_listed;
DROP TRIGGER market_data_changed;
ALTER TABLE market_data ADD COLUMN first_price real DEFAULT 0 CHECK (first_price >= 0);
UPDATE market_data SET first_price = base_price;
ALTER TABLE market_data DROP COLUMN base_price;
ALTER TABLE market_data RENAME COLUMN first_price TO base_price;
CREATE TRIGGER market_data_first_price_listed AFTER INSERT ON market_data WHEN
    NEW.base_price = 0 OR NEW.base_price IS NULL AND typeof(NEW.last_quote) IN ('real', 'integer')
        AND NEW.last_quote > 0 AND NEW.last_quote <= 2000000000
BEGIN
    UPDATE market_data SET base_price = iif(typeof(NEW.last_quote) IN ('real', 'integer')
        AND NEW.last_quote > 0 AND NEW.last_quote <= 2000000000, last_quote, 0.01)
        WHERE id = NEW.id; END;
CREATE TRIGGER market_data_first_price AFTER UPDATE ON market_data WHEN
    NEW.base_price IS NULL AND typeof(NEW.last_quote) IN ('real', 'integer')
        AND NEW.last_quote > 0 AND NEW.last_quote <= 2000000000
BEGIN
    UPDATE market_data SET base_price = last_quote WHERE id = NEW.id; END;
-- As before.
CREATE TRIGGER market_data_listed AFTER INSERT ON market_data BEGIN
    UPDATE market_data SET changed_in = 0
        WHERE changed_in >= iif((SELECT max(changed_in) FROM market_data WHERE changed_in < 9007199254740990)
            >= 9007199254740989, 0, 9007199254740990);
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
-- A price counts as changed if its version did not change: then no server wrote it.
CREATE TRIGGER market_data_changed AFTER UPDATE ON market_data WHEN
    (OLD.name, OLD.category, OLD.base_price, OLD.market_cap, OLD.price_decimals, OLD.made_up_price, OLD.delisted)
    IS NOT
    (NEW.name, NEW.category, NEW.base_price, NEW.market_cap, NEW.price_decimals, NEW.made_up_price, NEW.delisted)
    OR OLD.version IS NEW.version
        AND (OLD.last_quote, OLD.volume, OLD.quoted_at) IS NOT (NEW.last_quote, NEW.volume, NEW.quoted_at)
BEGIN
    UPDATE market_data SET changed_in = 0
        WHERE changed_in >= iif((SELECT max(changed_in) FROM market_data WHERE changed_in < 9007199254740990)
            >= 9007199254740989, 0, 9007199254740990);
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
