-- The words of names, which Python folds (server/store/search.py). A row is indexed if `words_of` is its name.
ALTER TABLE market_data DROP COLUMN words;
ALTER TABLE market_data ADD COLUMN words_of text;
CREATE TABLE name_words (
    word text NOT NULL,
    id integer NOT NULL,
    PRIMARY KEY (word, id)
) WITHOUT ROWID;
CREATE INDEX name_words_of ON name_words (id);
CREATE INDEX market_data_unindexed ON market_data (id) WHERE words_of IS NOT name;
-- Symbols without what vendors part the class of a share by: server.store.search.symbol_key.
CREATE INDEX market_data_spelling ON market_data
    (replace(replace(replace(replace(symbol, '-', ''), '/', ''), '.', ''), ' ', ''));
