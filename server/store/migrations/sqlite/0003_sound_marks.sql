-- Marks stay below 2^53 - 2, even if another program writes into the column. Other values are cleared: texts and
-- blobs sort above all numbers. When marks reach the limit, they restart at 1, and servers notice that.
DROP TRIGGER market_data_listed;
DROP TRIGGER market_data_changed;
CREATE TRIGGER market_data_listed AFTER INSERT ON market_data BEGIN
    UPDATE market_data SET changed_in = 0
        WHERE changed_in >= iif((SELECT max(changed_in) FROM market_data WHERE changed_in < 9007199254740990)
            >= 9007199254740989, 0, 9007199254740990);
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
CREATE TRIGGER market_data_changed AFTER UPDATE ON market_data WHEN
    (OLD.name, OLD.category, OLD.base_price, OLD.market_cap, OLD.price_decimals, OLD.made_up_price, OLD.delisted)
    IS NOT
    (NEW.name, NEW.category, NEW.base_price, NEW.market_cap, NEW.price_decimals, NEW.made_up_price, NEW.delisted)
BEGIN
    UPDATE market_data SET changed_in = 0
        WHERE changed_in >= iif((SELECT max(changed_in) FROM market_data WHERE changed_in < 9007199254740990)
            >= 9007199254740989, 0, 9007199254740990);
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
