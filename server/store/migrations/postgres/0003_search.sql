-- Words of the name as lexemes, split as server.store.catalogue.words does. So an index finds a prefix
-- of a word in any database language.
ALTER TABLE market_data ADD COLUMN words tsvector GENERATED ALWAYS AS (
    array_to_tsvector(array_remove(
        regexp_split_to_array(lower(name), '[\x01-/:-@\[-`{-\x7f]+'), ''
    ))
) STORED;
CREATE INDEX market_data_words ON market_data USING gin (words);
-- For prefixes of a symbol and pages by symbol, in byte order under any collation.
CREATE INDEX market_data_symbol_prefix ON market_data (symbol COLLATE "C");
