package zoo

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"dbbackup/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// facts maps what was looked at to what was found there.
type facts map[string]string

// aspect is a query for facts: its two columns are a key and a value, as text.
type aspect struct {
	name  string
	since int // the server_version_num that the query needs
	sql   string
}

// acl is a privilege list as pg_dump sees it: the default spelled out, and
// without the order in which privileges were granted.
func acl(column, kind, owner string) string {
	return `(SELECT string_agg(format('%s=%s%s/%s', CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END,
	    a.privilege_type, CASE WHEN a.is_grantable THEN '*' END, a.grantor::regrole), ', ' ORDER BY a.grantee::regrole::text COLLATE "C", a.privilege_type, a.grantor::regrole::text COLLATE "C")
	  FROM aclexplode(coalesce(` + column + `, acldefault('` + kind + `', ` + owner + `))) a)`
}

// databaseAspects are what a schema dump does not show, table contents aside.
func databaseAspects() []aspect {
	return []aspect{
		{"large object", 0, `SELECT oid::text, format('owner %s, md5 %s, privileges %s, comment %L', lomowner::regrole, md5(lo_get(oid)),
			` + acl("lomacl", "L", "lomowner") + `, obj_description(oid, 'pg_largeobject')) FROM pg_largeobject_metadata`},
		{"populated", 0, `SELECT oid::regclass::text, relispopulated::text FROM pg_class WHERE relkind = 'm'`},
		{"index state", 0, `SELECT indexrelid::regclass::text, format('valid %s, ready %s', indisvalid, indisready) FROM pg_index
			WHERE indexrelid >= 16384 AND indrelid NOT IN (SELECT oid FROM pg_class WHERE relkind = 't')`},
		{"database", 0, `SELECT p.key, p.value FROM pg_database d, LATERAL (VALUES
			('owner', datdba::regrole::text), ('encoding', pg_encoding_to_char(encoding)), ('collate', datcollate::text), ('ctype', datctype::text),
			('template', datistemplate::text), ('connections', format('allowed %s, limit %s', datallowconn, datconnlimit)),
			('tablespace', (SELECT spcname::text FROM pg_tablespace t WHERE t.oid = dattablespace)), ('comment', shobj_description(oid, 'pg_database')),
			('privileges', ` + acl("datacl", "d", "datdba") + `)) AS p(key, value) WHERE datname = current_database()`},
		{"database", 150000, `SELECT 'locale provider', datlocprovider::text FROM pg_database WHERE datname = current_database()`},
		{"setting of", 0, `SELECT coalesce(setrole::regrole::text, '-'), (SELECT string_agg(c, '; ' ORDER BY c COLLATE "C") FROM unnest(setconfig) c)
			FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())`},
	}
}

// globalAspects are what belongs to no database. The bootstrap superuser (OID
// 10) keeps each cluster's own password.
func globalAspects() []aspect {
	return []aspect{
		{"role", 0, `SELECT rolname::text, format('super %s, inherit %s, createrole %s, createdb %s, login %s, replication %s, bypassrls %s, limit %s, until %s, password %s, settings %s, comment %L',
			rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil, CASE WHEN oid = 10 THEN 'its own' ELSE md5(rolpassword) END,
			(SELECT string_agg(c, '; ' ORDER BY c COLLATE "C") FROM pg_db_role_setting s, unnest(setconfig) c WHERE setrole = a.oid AND setdatabase = 0),
			shobj_description(oid, 'pg_authid')) FROM pg_authid a WHERE rolname !~ '^pg_'`},
		{"membership", 0, `SELECT format('%s in %s by %s', member::regrole, roleid::regrole, grantor::regrole), 'admin ' || admin_option FROM pg_auth_members WHERE member >= 16384`},
		{"membership options", 160000, `SELECT format('%s in %s by %s', member::regrole, roleid::regrole, grantor::regrole), format('inherit %s, set %s', inherit_option, set_option) FROM pg_auth_members WHERE member >= 16384`},
		{"tablespace", 0, `SELECT spcname::text, format('owner %s, options %s, comment %L, privileges %s', spcowner::regrole, spcoptions, shobj_description(oid, 'pg_tablespace'), ` + acl("spcacl", "t", "spcowner") + `) FROM pg_tablespace`},
		{"parameter", 150000, `SELECT parname, ` + acl("paracl", "p", "10") + ` FROM pg_parameter_acl`},
	}
}

func databaseFacts(ctx context.Context, c *pgtest.Cluster, db string, version int) (facts, error) {
	conn, err := dial(ctx, c, db)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	found := facts{}
	if err := collect(ctx, conn, found, databaseAspects(), version); err != nil {
		return nil, err
	}
	if err := collectRows(ctx, conn, found); err != nil {
		return nil, err
	}
	return found, collectSequences(ctx, conn, found)
}

func globalFacts(ctx context.Context, c *pgtest.Cluster, version int) (facts, error) {
	conn, err := dial(ctx, c, "postgres")
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	found := facts{}
	return found, collect(ctx, conn, found, globalAspects(), version)
}

// dial connects with an empty search path, so that names print in full.
func dial(ctx context.Context, c *pgtest.Cluster, db string) (*pgx.Conn, error) {
	conn, err := c.Dial(ctx, db)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, "SET search_path = ''")
	return conn, err
}

// collect runs the queries that the version has and adds their rows.
func collect(ctx context.Context, conn *pgx.Conn, into facts, aspects []aspect, version int) error {
	for _, a := range aspects {
		if a.since > version {
			continue
		}
		rows, err := conn.Query(ctx, a.sql)
		if err != nil {
			return fmt.Errorf("read %s: %w", a.name, err)
		}
		var key string
		var value *string
		_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
			into[a.name+" "+key] = text(value)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", a.name, err)
		}
	}
	return nil
}

func text(value *string) string {
	if value == nil {
		return "null"
	}
	return *value
}

// diffFacts returns one line for each key that is not the same in both.
func diffFacts(a, b facts) []string {
	all := facts{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	var differences []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		inA, okA := a[key]
		inB, okB := b[key]
		switch {
		case !okB:
			differences = append(differences, fmt.Sprintf("%s: only in the first: %s", key, inA))
		case !okA:
			differences = append(differences, fmt.Sprintf("%s: only in the second: %s", key, inB))
		case inA != inB:
			differences = append(differences, fmt.Sprintf("%s: %s, and in the second: %s", key, inA, inB))
		}
	}
	return differences
}
