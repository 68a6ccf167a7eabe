-- Marks stay below 2^53 - 2, whatever anybody wrote into the column. What is not below it (texts and blobs are
-- above all numbers) is cleared. When marks reach it, all of them begin anew, which servers notice.
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
