package sqltext

import "testing"

func TestMapRoles(t *testing.T) {
	m := map[string]string{"a": "x", `we"ird; --`: "y", "A": `q"q`, "b": "b", "public": "never", "current_user": "never"}
	for sql, want := range map[string]string{
		`ALTER TABLE public.a OWNER TO a;`:                                                       `ALTER TABLE public.a OWNER TO "x";`,
		`ALTER FUNCTION public.f(a integer) OWNER TO "A";`:                                       `ALTER FUNCTION public.f(a integer) OWNER TO "q""q";`,
		`ALTER TABLE t OWNER TO "we""ird; --";`:                                                  `ALTER TABLE t OWNER TO "y";`,
		`ALTER TABLE t OWNER TO b;`:                                                              ``,
		`ALTER TABLE t OWNER TO c;`:                                                              ``,
		`ALTER TABLE "owner" RENAME TO a;`:                                                       ``,
		`ALTER LARGE OBJECT 5 OWNER TO A;`:                                                       `ALTER LARGE OBJECT 5 OWNER TO "x";`,
		`GRANT SELECT(a),UPDATE(a) ON TABLE public.a TO a;`:                                      `GRANT SELECT(a),UPDATE(a) ON TABLE public.a TO "x";`,
		`GRANT ALL ON FUNCTION a."to"(a a) TO a WITH GRANT OPTION GRANTED BY a;`:                 `GRANT ALL ON FUNCTION a."to"(a a) TO "x" WITH GRANT OPTION GRANTED BY "x";`,
		`REVOKE ALL ON SCHEMA a FROM PUBLIC, a CASCADE;`:                                         `REVOKE ALL ON SCHEMA a FROM PUBLIC, "x" CASCADE;`,
		`REVOKE GRANT OPTION FOR ALL ON TYPE a FROM GROUP a;`:                                    `REVOKE GRANT OPTION FOR ALL ON TYPE a FROM GROUP "x";`,
		`GRANT SELECT ON TABLE a TO current_user;`:                                               ``,
		`GRANT a TO c WITH ADMIN OPTION, INHERIT FALSE GRANTED BY a;`:                            `GRANT "x" TO c WITH ADMIN OPTION, INHERIT FALSE GRANTED BY "x";`,
		`REVOKE ADMIN OPTION FOR a FROM a;`:                                                      `REVOKE ADMIN OPTION FOR "x" FROM "x";`,
		`GRANT SELECT ON TABLE a TO c; GRANT SELECT ON TABLE a TO a;`:                            `GRANT SELECT ON TABLE a TO c; GRANT SELECT ON TABLE a TO "x";`,
		"SET SESSION AUTHORIZATION a;\nGRANT ALL ON TABLE t TO a;\nRESET SESSION AUTHORIZATION;": "SET SESSION AUTHORIZATION \"x\";\nGRANT ALL ON TABLE t TO \"x\";\nRESET SESSION AUTHORIZATION;",
		`SET SESSION AUTHORIZATION 'a';`:                                                         `SET SESSION AUTHORIZATION 'x';`,
		`SET SESSION AUTHORIZATION DEFAULT;`:                                                     ``,
		`ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA a GRANT ALL ON TABLES TO a;`:              `ALTER DEFAULT PRIVILEGES FOR ROLE "x" IN SCHEMA a GRANT ALL ON TABLES TO "x";`,
		`ALTER DEFAULT PRIVILEGES FOR ROLE c REVOKE ALL ON TABLES FROM PUBLIC;`:                  ``,
		`CREATE POLICY a ON public.a FOR SELECT TO a, c, "A" USING ((a = 'a'::name));`:           `CREATE POLICY a ON public.a FOR SELECT TO "x", c, "q""q" USING ((a = 'a'::name));`,
		`CREATE POLICY a ON t USING ((a IN (SELECT a FROM a)));`:                                 ``,
		`CREATE USER MAPPING FOR a SERVER a OPTIONS (a 'a');`:                                    `CREATE USER MAPPING FOR "x" SERVER a OPTIONS (a 'a');`,
		`ALTER ROLE a WITH NOSUPERUSER PASSWORD 'a';`:                                            `ALTER ROLE "x" WITH NOSUPERUSER PASSWORD 'a';`,
		`CREATE ROLE a;`: `CREATE ROLE "x";`,
		`CREATE TABLESPACE a OWNER a LOCATION '/a';`:                                      `CREATE TABLESPACE a OWNER "x" LOCATION '/a';`,
		`CREATE SCHEMA a AUTHORIZATION a;`:                                                `CREATE SCHEMA a AUTHORIZATION "x";`,
		`CREATE FUNCTION a() RETURNS void LANGUAGE sql AS $$ALTER TABLE t OWNER TO a;$$;`: ``,
		`COMMENT ON TABLE t IS 'x; ALTER TABLE t OWNER TO a';`:                            ``,
		`-- ALTER TABLE t OWNER TO a;`:                                                    ``,
		"/* GRANT a TO a; */ GRANT SELECT ON t /* TO a */ TO a":                           "/* GRANT a TO a; */ GRANT SELECT ON t /* TO a */ TO \"x\"",
		`INSERT INTO t VALUES ('a') /* OWNER TO */;`:                                      ``,
	} {
		got, changed := MapRoles(sql, m)
		if want == "" && (changed || got != sql) {
			t.Errorf("%s\nchanged to\n%s", sql, got)
		}
		if want != "" && (!changed || got != want) {
			t.Errorf("%s\ngot (changed %v)\n%s\nwant\n%s", sql, changed, got, want)
		}
	}
}

func TestOwnershipStatement(t *testing.T) {
	for sql, want := range map[string]bool{
		"ALTER TABLE t OWNER TO a;":                          true,
		"-- Name: t\n\nGRANT SELECT ON TABLE t TO a;":        true,
		"REVOKE ALL ON t FROM a; GRANT ALL ON t TO b;":       true,
		"SET SESSION AUTHORIZATION 'a';":                     true,
		"RESET SESSION AUTHORIZATION;":                       true,
		"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO a;": true,
		"":                                   false,
		"-- GRANT":                           false,
		"ALTER TABLE t ADD COLUMN a a;":      false,
		"ALTER TABLE t RENAME TO a;":         false,
		"GRANT ALL ON t TO b; DROP t;":       false,
		"SET search_path = '';":              false,
		"SELECT 'ALTER TABLE t OWNER TO a';": false,
	} {
		if got := OwnershipStatement(sql); got != want {
			t.Errorf("%q: got %v, want %v", sql, got, want)
		}
	}
}
