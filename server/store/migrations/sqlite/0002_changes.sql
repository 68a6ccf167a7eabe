-- A delisted instrument keeps its row, as it may be listed again.
ALTER TABLE market_data ADD COLUMN delisted integer NOT NULL DEFAULT 0;
-- Grows with each change of reference data. Every server looks here every few seconds.
ALTER TABLE market_data ADD COLUMN changed_in integer NOT NULL DEFAULT 0;
CREATE INDEX market_data_changed ON market_data (changed_in);
CREATE TRIGGER market_data_listed AFTER INSERT ON market_data BEGIN
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
CREATE TRIGGER market_data_changed AFTER UPDATE ON market_data WHEN
    (OLD.name, OLD.category, OLD.base_price, OLD.market_cap, OLD.price_decimals, OLD.made_up_price, OLD.delisted)
    IS NOT
    (NEW.name, NEW.category, NEW.base_price, NEW.market_cap, NEW.price_decimals, NEW.made_up_price, NEW.delisted)
BEGIN
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
