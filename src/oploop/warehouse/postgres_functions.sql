-- What DuckDB does by the type of its argument, as overloaded functions: Postgres chooses one while it parses, as DuckDB
-- does while it binds. `try_*` are TRY_CAST: NULL where a value does not fit. `to_*` bring a value to the form in which
-- values are compared (Values.typed_value). All are STABLE, as what may stand in a text depends on the session's settings.

-- Texts that stand for a number, a date, a time: Postgres itself takes more ('today', '1_000', '0x1f', 'March 1').
CREATE FUNCTION {fn}.is_number(t text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
  SELECT t ~* '^\s*([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf(inity)?)\s*$' $$;
CREATE FUNCTION {fn}.is_moment(t text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
  SELECT t ~* '^\s*(\d{1,6}-\d\d?-\d\d?([t ]\d\d?:\d\d(:\d\d(\.\d+)?)?\s*(z|utc|[+-]\d\d(:?\d\d)?)?)?(\s*\(?bc\)?)?|[+-]?infinity)\s*$' $$;

CREATE FUNCTION {fn}.try_numeric(t text) RETURNS numeric LANGUAGE plpgsql STABLE PARALLEL SAFE STRICT AS $$
BEGIN
  IF {fn}.is_number(t) AND pg_input_is_valid(t, 'numeric') THEN RETURN t::numeric; END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION {fn}.try_numeric(v numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.try_numeric(v bigint) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::numeric $$;
CREATE FUNCTION {fn}.try_numeric(v integer) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::numeric $$;
CREATE FUNCTION {fn}.try_numeric(v smallint) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::numeric $$;
-- the cast of a double to numeric keeps 15 digits only; whole numbers go by bigint, which is exact
CREATE FUNCTION {fn}.try_numeric(v double precision) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN abs(v) < 9e18 AND v = trunc(v) THEN v::bigint::numeric ELSE v::text::numeric END $$;
CREATE FUNCTION {fn}.try_numeric(v real) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::text::numeric $$;
CREATE FUNCTION {fn}.try_numeric(v anyelement) RETURNS numeric LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_numeric({fn}.to_text(v)) $$;
CREATE FUNCTION {fn}.in_decimal(v numeric, p integer, s integer) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
  SELECT CASE WHEN v NOT IN ('NaN', 'Infinity', '-Infinity') AND abs(round(v, s)) < power(10::numeric, p - s) THEN round(v, s) END $$;

CREATE FUNCTION {fn}.whole(v numeric) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
  SELECT CASE WHEN v BETWEEN -9223372036854775808 AND 9223372036854775807 THEN round(v)::bigint END $$;
CREATE FUNCTION {fn}.try_bigint(v bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.try_bigint(v integer) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::bigint $$;
CREATE FUNCTION {fn}.try_bigint(v smallint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::bigint $$;
CREATE FUNCTION {fn}.try_bigint(v boolean) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::integer::bigint $$;
CREATE FUNCTION {fn}.try_bigint(v double precision) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN v >= -9223372036854775808 AND v < 9223372036854775808 THEN v::bigint END $$;
CREATE FUNCTION {fn}.try_bigint(v real) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_bigint(v::double precision) $$;
CREATE FUNCTION {fn}.try_bigint(v numeric) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {fn}.whole(v) $$;
CREATE FUNCTION {fn}.try_bigint(t text) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.whole({fn}.try_numeric(t)) $$;
CREATE FUNCTION {fn}.try_bigint(v anyelement) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.whole({fn}.try_numeric({fn}.to_text(v))) $$;

CREATE FUNCTION {fn}.try_double(v double precision) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.try_double(v boolean) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT v::integer::double precision $$;
CREATE FUNCTION {fn}.try_double(t text) RETURNS double precision LANGUAGE plpgsql STABLE PARALLEL SAFE STRICT AS $$
BEGIN
  IF {fn}.is_number(t) AND pg_input_is_valid(t, 'double precision') THEN RETURN t::double precision; END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION {fn}.try_double(v anyelement) RETURNS double precision LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_double({fn}.to_text(v)) $$;

CREATE FUNCTION {fn}.try_boolean(v boolean) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.try_boolean(t text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN lower(trim(t)) IN ('true', 't', 'yes', 'y', '1') THEN TRUE
    WHEN lower(trim(t)) IN ('false', 'f', 'no', 'n', '0') THEN FALSE END $$;
CREATE FUNCTION {fn}.try_boolean(v anyelement) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_boolean({fn}.to_text(v)) $$;

CREATE FUNCTION {fn}.try_timestamptz(v timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.try_timestamptz(v timestamp) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT v AT TIME ZONE 'UTC' $$;
CREATE FUNCTION {fn}.try_timestamptz(v date) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT v::timestamp AT TIME ZONE 'UTC' $$;
CREATE FUNCTION {fn}.try_timestamptz(t text) RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE STRICT AS $$
DECLARE plain text := translate(t, '()', '');
BEGIN
  IF {fn}.is_moment(t) AND pg_input_is_valid(plain, 'timestamptz') THEN RETURN plain::timestamptz; END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION {fn}.try_timestamptz(v anyelement) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_timestamptz({fn}.to_text(v)) $$;

CREATE FUNCTION {fn}.try_timestamp(v timestamp) RETURNS timestamp LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.try_timestamp(v timestamptz) RETURNS timestamp LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT v AT TIME ZONE 'UTC' $$;
CREATE FUNCTION {fn}.try_timestamp(v date) RETURNS timestamp LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::timestamp $$;
CREATE FUNCTION {fn}.try_timestamp(v anyelement) RETURNS timestamp LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_timestamptz({fn}.to_text(v)) AT TIME ZONE 'UTC' $$;
CREATE FUNCTION {fn}.try_timestamp(t text) RETURNS timestamp LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_timestamptz(t) AT TIME ZONE 'UTC' $$;

CREATE FUNCTION {fn}.try_date(v date) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.try_date(v timestamp) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::date $$;
CREATE FUNCTION {fn}.try_date(v timestamptz) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (v AT TIME ZONE 'UTC')::date $$;
CREATE FUNCTION {fn}.try_date(t text) RETURNS date LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_timestamp(t)::date $$;
CREATE FUNCTION {fn}.try_date(v anyelement) RETURNS date LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_date({fn}.to_text(v)) $$;

-- jsonb holds no U+0000: it becomes U+FFFD, rather than the whole value NULL
CREATE FUNCTION {fn}.try_json(t text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE plain text;
BEGIN
  IF pg_input_is_valid(t, 'jsonb') THEN RETURN t::jsonb; END IF;
  IF position('\u0000' in t) = 0 THEN RETURN NULL; END IF;
  plain := regexp_replace(t, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g');
  RETURN CASE WHEN pg_input_is_valid(plain, 'jsonb') THEN plain::jsonb END;
END $$;
CREATE FUNCTION {fn}.try_json(v jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.try_json(v json) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {fn}.try_json(v::text) $$;
CREATE FUNCTION {fn}.try_json(v anyelement) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT to_jsonb(v) $$;

-- JSON as text, without blanks, keys in order
CREATE FUNCTION {fn}.json_text(v jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
  CASE jsonb_typeof(v)
    WHEN 'object' THEN
      RETURN '{' || COALESCE((SELECT string_agg(to_json(key)::text || ':' || {fn}.json_text(value), ',' ORDER BY key COLLATE "C")
        FROM jsonb_each(v)), '') || '}';
    WHEN 'array' THEN
      RETURN '[' || COALESCE((SELECT string_agg({fn}.json_text(value), ',' ORDER BY at)
        FROM jsonb_array_elements(v) WITH ORDINALITY AS x(value, at)), '') || ']';
    WHEN 'number' THEN RETURN trim_scale(v::text::numeric)::text;
    ELSE RETURN v::text;
  END CASE;
END $$;
CREATE FUNCTION {fn}.json_text(v json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {fn}.json_text({fn}.try_json(v)) $$;
CREATE FUNCTION {fn}.json_keys(v jsonb) RETURNS SETOF text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT jsonb_object_keys(v) $$;
CREATE FUNCTION {fn}.json_keys(t text) RETURNS SETOF text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT jsonb_object_keys({fn}.try_json(t)) $$;
CREATE FUNCTION {fn}.json_entry(v jsonb, its_key text, equals text, its_value text) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT x.e -> its_value FROM jsonb_array_elements(CASE WHEN jsonb_typeof(v) = 'array' THEN v END) AS x(e)
  WHERE x.e ->> its_key = equals LIMIT 1 $$;

CREATE FUNCTION {fn}.to_text(t text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT t $$;
CREATE FUNCTION {fn}.to_text(v jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE jsonb_typeof(v) WHEN 'string' THEN v #>> '{}' WHEN 'null' THEN NULL ELSE {fn}.json_text(v) END $$;
CREATE FUNCTION {fn}.to_text(v json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {fn}.to_text({fn}.try_json(v)) $$;
CREATE FUNCTION {fn}.to_text(v bigint) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v integer) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v smallint) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v double precision) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v real) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v numeric) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v boolean) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v date) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v timestamp) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
CREATE FUNCTION {fn}.to_text(v timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT v::text $$;
-- lists and rows as JSON; that Postgres tells f(anyarray) from f(anyelement) cannot be had
CREATE FUNCTION {fn}.to_text(v anyelement) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN left(to_json(v)::text, 1) IN ('[', '{') THEN to_json(v)::text ELSE v::text END $$;

CREATE FUNCTION {fn}.to_bigint(v bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.to_bigint(v integer) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::bigint $$;
CREATE FUNCTION {fn}.to_bigint(v smallint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::bigint $$;
CREATE FUNCTION {fn}.to_bigint(v numeric) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
  SELECT CASE WHEN v = trunc(v) THEN {fn}.whole(v) END $$;
CREATE FUNCTION {fn}.to_bigint(v double precision) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN v = trunc(v) THEN {fn}.try_bigint(v) END $$;
CREATE FUNCTION {fn}.to_bigint(v real) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT {fn}.to_bigint(v::double precision) $$;
CREATE FUNCTION {fn}.to_bigint(t text) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.to_bigint({fn}.try_numeric(t)) $$;
CREATE FUNCTION {fn}.to_bigint(v anyelement) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.to_bigint({fn}.try_numeric({fn}.to_text(v))) $$;

CREATE FUNCTION {fn}.to_double(v double precision) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v $$;
CREATE FUNCTION {fn}.to_double(v real) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT v::double precision $$;
CREATE FUNCTION {fn}.to_double(t text) RETURNS double precision LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT {fn}.try_double(t) $$;
CREATE FUNCTION {fn}.to_double(v anyelement) RETURNS double precision LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_double({fn}.to_text(v)) $$;

CREATE FUNCTION {fn}.list_text(v text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN v IS NOT NULL THEN '[' || COALESCE((SELECT string_agg(to_json(x)::text, ',' ORDER BY x COLLATE "C")
    FROM (SELECT DISTINCT x FROM unnest(v) AS x WHERE x IS NOT NULL) AS d), '') || ']' END $$;
CREATE FUNCTION {fn}.try_texts(v jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN jsonb_typeof(v) = 'array' THEN ARRAY(SELECT {fn}.to_text(e) FROM jsonb_array_elements(v) AS e) END $$;
CREATE FUNCTION {fn}.try_texts(t text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {fn}.try_texts({fn}.try_json(t)) $$;
CREATE FUNCTION {fn}.try_texts(v json) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {fn}.try_texts({fn}.try_json(v)) $$;
CREATE FUNCTION {fn}.try_texts(v anyelement) RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.try_texts(to_jsonb(v)) $$;
CREATE FUNCTION {fn}.list_sort(v anyarray) RETURNS anyarray LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN v IS NOT NULL THEN ARRAY(SELECT x FROM unnest(v) AS x ORDER BY x) END $$;
CREATE FUNCTION {fn}.list_merge(t text, added text[], removed text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT {fn}.list_text(ARRAY(SELECT x FROM unnest({fn}.try_texts(t)) AS x WHERE x <> ALL(removed)) || added) $$;

-- a number that no double holds (1e400), which nobody could read as JSON, makes the value none; written out it has 309 digits
CREATE FUNCTION {fn}.json_value(v jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN length(x.t) < 309 OR NOT jsonb_path_exists(v,
      '$.** ? (@.type() == "number" && (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308))') THEN x.t END
  FROM (SELECT CASE WHEN jsonb_typeof(v) <> 'null' THEN {fn}.json_text(v) END AS t) AS x $$;
CREATE FUNCTION {fn}.json_value(v json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {fn}.json_value({fn}.try_json(v)) $$;
CREATE FUNCTION {fn}.json_value(t text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT {fn}.json_value({fn}.try_json(t)) $$;
CREATE FUNCTION {fn}.json_value(v anyelement) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT {fn}.json_value(to_jsonb(v)) $$;

CREATE FUNCTION {fn}.isfinite(v double precision) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT v NOT IN ('NaN', 'Infinity', '-Infinity') $$;
CREATE FUNCTION {fn}.isfinite(v timestamptz) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT pg_catalog.isfinite(v) $$;
CREATE FUNCTION {fn}.isfinite(v timestamp) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT pg_catalog.isfinite(v) $$;
CREATE FUNCTION {fn}.isfinite(v date) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT pg_catalog.isfinite(v) $$;
CREATE FUNCTION {fn}.isfinite(v numeric) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT v NOT IN ('NaN', 'Infinity', '-Infinity') $$;

CREATE FUNCTION {fn}.type_name(t regtype) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT {fn}.duckdb_name(format_type(t, NULL)) $$;
-- format_type()'s names in DuckDB's words
CREATE FUNCTION {fn}.duckdb_name(t text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN t LIKE '%[]' THEN {fn}.duckdb_name(left(t, -2)) || '[]'
    WHEN t = 'numeric' THEN 'DECIMAL'
    WHEN t LIKE 'numeric(%' THEN 'DECIMAL' || substr(t, 8)
    WHEN t LIKE 'character varying%' OR t IN ('text', 'unknown') THEN 'VARCHAR'
    WHEN t = 'real' THEN 'FLOAT'
    WHEN t = 'double precision' THEN 'DOUBLE'
    WHEN t IN ('json', 'jsonb') THEN 'JSON'
    WHEN t = 'bytea' THEN 'BLOB'
    WHEN t LIKE 'timestamp%without time zone' THEN 'TIMESTAMP'
    WHEN t LIKE 'timestamp%with time zone' THEN 'TIMESTAMP WITH TIME ZONE'
    WHEN t LIKE 'time%without time zone' THEN 'TIME'
    ELSE upper(t) END $$
