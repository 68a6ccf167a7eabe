-- The table that other services know. If it exists already, it is used as it is.
CREATE TABLE IF NOT EXISTS market_data (
    id serial PRIMARY KEY,
    symbol varchar(50) NOT NULL UNIQUE,
    name varchar(200) NOT NULL,
    category integer NOT NULL, -- 1 stock, 2 exchange-traded fund
    last_quote numeric NOT NULL
);
