package pg

import (
	"cmp"
	"strings"
)

// ChildConninfo returns the connection string that makes a child of ours
// reach database on this server. It holds no secret: ChildEnv does.
func (e *Endpoint) ChildConninfo(database, application string) string {
	defaults := Params{
		"connect_timeout": "10", "keepalives": "1", "keepalives_idle": "30", "keepalives_interval": "10",
		"keepalives_count": "3", "tcp_user_timeout": "60000",
	}
	p := defaults.With(e.params).With(Params{"dbname": database, "application_name": application})
	return p.conninfo(func(key string) bool {
		switch key {
		case "password", "sslpassword", "options", "servicefile", "client_encoding":
			return false // in ChildEnv, where libpq has a variable for it
		}
		return true
	})
}

// ChildEnv returns the environment for children, with the password where the
// user gave one in the connection options, and with PGOPTIONS. Their client
// encoding is UTF8, whatever the user, the role or the database say, until
// they choose another themselves.
func (e *Endpoint) ChildEnv() []string {
	env := make([]string, 0, len(e.env)+4)
	for _, kv := range e.env {
		key, _, _ := strings.Cut(kv, "=")
		if e.overrides(key) {
			continue
		}
		env = append(env, kv)
	}
	if password := e.params["password"]; password != "" {
		env = append(env, "PGPASSWORD="+password)
	}
	if file := e.params["servicefile"]; file != "" { // a keyword only since version 18
		env = append(env, "PGSERVICEFILE="+file)
	}
	if options := e.childOptions(); options != "" {
		env = append(env, "PGOPTIONS="+options)
	}
	return append(env, "PGCLIENTENCODING=UTF8")
}

// childOptions are settings that must hold from a child's first statement on.
// A role's or a database's own would end it before it can say otherwise
// (statement_timeout), or while it waits for its other workers
// (idle_session_timeout); the rest lets the server notice that we vanished.
// What the user gave comes last and wins. A pooler would refuse them.
func (e *Endpoint) childOptions() string {
	given := cmp.Or(e.params["options"], lookup(e.env, "PGOPTIONS"))
	if e.pooled {
		return given
	}
	options := "-c statement_timeout=0 -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10" +
		" -c tcp_keepalives_count=3 -c tcp_user_timeout=60000"
	if e.version >= 140000 {
		options += " -c idle_session_timeout=0"
	}
	return options + " " + given
}

// overrides reports whether an environment variable must not reach a child,
// because the endpoint is already resolved or says something else.
func (e *Endpoint) overrides(key string) bool {
	switch key {
	case "PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGTARGETSESSIONATTRS", "PGAPPNAME", "PGOPTIONS", "PGCLIENTENCODING":
		return true
	case "PGPASSWORD":
		return e.params["password"] != ""
	case "PGSERVICEFILE":
		return e.params["servicefile"] != ""
	}
	return strings.HasPrefix(key, "DBBACKUP_")
}
