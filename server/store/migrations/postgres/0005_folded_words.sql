-- The words of names, which Python folds (server/store/search.py): a database's own lower() depends on its locale.
-- A row is indexed if `words_of` is its name.
ALTER TABLE market_data DROP COLUMN words;
ALTER TABLE market_data ADD COLUMN words tsvector, ADD COLUMN words_of text;
CREATE INDEX market_data_words ON market_data USING gin (words);
CREATE INDEX market_data_unindexed ON market_data (id) WHERE words_of IS DISTINCT FROM name;
-- Symbols without what vendors part the class of a share by: server.store.search.symbol_key.
CREATE INDEX market_data_spelling ON market_data ((translate(symbol, '-/. ', '')) COLLATE "C");
