-- Splits and new beginnings, oldest first: `4:1 fresh@1764012345678901` (server/quotes/adjustment.py). The symbol
-- that a renamed instrument has now: its old symbol keeps a delisted row.
ALTER TABLE market_data
    ADD COLUMN adjustments varchar(1000) NOT NULL DEFAULT '',
    ADD COLUMN renamed_to varchar(50);

CREATE TRIGGER market_data_adjusted BEFORE UPDATE ON market_data FOR EACH ROW WHEN (
    (OLD.symbol, OLD.adjustments, OLD.renamed_to) IS DISTINCT FROM (NEW.symbol, NEW.adjustments, NEW.renamed_to)
) EXECUTE FUNCTION market_data_changed();
