-- Words of the name as lexemes, split as server.store.catalogue.words does, so that a prefix of a
-- word is found by index whatever the database's language.
ALTER TABLE market_data ADD COLUMN words tsvector GENERATED ALWAYS AS (
    array_to_tsvector(array_remove(
        regexp_split_to_array(lower(name), '[\x01-/:-@\[-`{-\x7f]+'), ''
    ))
) STORED;
CREATE INDEX market_data_words ON market_data USING gin (words);
-- Prefixes of a symbol, and pages by symbol, in the order of its bytes whatever the collation.
CREATE INDEX market_data_symbol_prefix ON market_data (symbol COLLATE "C");
