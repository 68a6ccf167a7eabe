-- Splits and new beginnings, oldest first: `4:1 fresh@1764012345678901` (server/quotes/adjustment.py). The symbol
-- that a renamed instrument has now: its old symbol keeps a delisted row.
ALTER TABLE market_data ADD COLUMN adjustments text NOT NULL DEFAULT '' CHECK (length(adjustments) <= 1000);
ALTER TABLE market_data ADD COLUMN renamed_to text;
CREATE TRIGGER market_data_adjusted AFTER UPDATE ON market_data WHEN
    (OLD.symbol, OLD.adjustments, OLD.renamed_to) IS NOT (NEW.symbol, NEW.adjustments, NEW.renamed_to)
BEGIN
    UPDATE market_data SET changed_in = 0
        WHERE changed_in >= iif((SELECT max(changed_in) FROM market_data WHERE changed_in < 9007199254740990)
            >= 9007199254740989, 0, 9007199254740990);
    UPDATE market_data SET changed_in = (SELECT max(changed_in) + 1 FROM market_data) WHERE id = NEW.id; END;
