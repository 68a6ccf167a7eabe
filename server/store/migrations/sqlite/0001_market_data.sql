CREATE TABLE market_data (
    id integer PRIMARY KEY,
    symbol text NOT NULL UNIQUE,
    name text NOT NULL,
    category integer NOT NULL,
    last_quote real NOT NULL,
    base_price real NOT NULL CHECK (base_price > 0),
    market_cap integer,
    price_decimals integer NOT NULL DEFAULT 2,
    made_up_price integer NOT NULL DEFAULT 0,
    volume integer NOT NULL DEFAULT 0,
    version integer NOT NULL DEFAULT 1,
    quoted_at integer NOT NULL DEFAULT 0, -- microseconds since the Unix epoch, 0 for never
    words text NOT NULL, -- of the name, as server.store.catalogue.words has them, a space before each
    watched_at real -- seconds since the Unix epoch
);
CREATE INDEX market_data_watched ON market_data (watched_at);
