-- The table that other services know. One of that form which is there already is taken over.
CREATE TABLE IF NOT EXISTS market_data (
    id serial PRIMARY KEY,
    symbol varchar(50) NOT NULL UNIQUE,
    name varchar(200) NOT NULL,
    category integer NOT NULL, -- 1 stock, 2 exchange-traded fund
    last_quote numeric NOT NULL
);
