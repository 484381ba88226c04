package pg

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"dbbackup/internal/fault"
)

// Params are libpq connection parameters by keyword, as a user gave them
// (PostgreSQL manual, libpq, "Parameter Key Words"). What is absent comes from
// the PG* environment variables, the service file and the password file, for
// this process and for its children alike.
type Params map[string]string

// ParseParams reads a connection string: a postgresql:// URI or
// keyword = value pairs. Anything else is taken as the name of a database, as
// psql's -d does.
func ParseParams(s string) (Params, error) {
	switch {
	case s == "":
		return Params{}, nil
	case strings.HasPrefix(s, "postgresql://"), strings.HasPrefix(s, "postgres://"):
		return parseURI(s)
	case strings.Contains(s, "="):
		return parseKeywords(s)
	default:
		p := Params{"dbname": s}
		return p, p.check()
	}
}

// badConninfo never quotes the string itself: it may hold a password.
func badConninfo(format string, args ...any) error {
	return fault.New(fault.Usage, "see the PostgreSQL manual, libpq, \"Connection Strings\"",
		"connection string: "+format, args...)
}

func parseURI(s string) (Params, error) {
	_, rest, _ := strings.Cut(s, "://")
	p := Params{}
	// As libpq does: credentials end at the first @ before any slash, and may
	// hold a question mark.
	if at := strings.IndexAny(rest, "@/"); at >= 0 && rest[at] == '@' {
		p["user"], p["password"], _ = strings.Cut(rest[:at], ":")
		rest = rest[at+1:]
	}
	authority, query, _ := strings.Cut(rest, "?")
	authority, dbname, _ := strings.Cut(authority, "/")
	p["host"], p["port"] = splitHosts(authority)
	p["dbname"] = dbname
	for _, pair := range strings.Split(query, "&") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			p[key] = value
		} else if pair != "" {
			return nil, badConninfo("a parameter has no value")
		}
	}
	for key, value := range p {
		decoded, err := url.PathUnescape(value)
		if err != nil {
			return nil, badConninfo("the %s has a broken %%-escape", key)
		}
		p[key] = decoded
		if decoded == "" {
			delete(p, key)
		}
	}
	if p["ssl"] == "true" { // JDBC's spelling, which libpq accepts
		p["sslmode"] = "require"
	}
	delete(p, "ssl")
	return p, p.check()
}

// splitHosts turns "a:1,[::1]:2" into libpq's parallel lists "a,::1", "1,2".
func splitHosts(authority string) (hosts, ports string) {
	var h, p []string
	for _, one := range strings.Split(authority, ",") {
		host, port := one, ""
		if end := strings.LastIndex(one, "]"); strings.HasPrefix(one, "[") && end > 0 {
			host, port = one[1:end], strings.TrimPrefix(one[end+1:], ":")
		} else if i := strings.LastIndex(one, ":"); i >= 0 {
			host, port = one[:i], one[i+1:]
		}
		h, p = append(h, host), append(p, port)
	}
	if strings.Trim(strings.Join(p, ""), ",") == "" {
		p = nil
	}
	return strings.Join(h, ","), strings.Join(p, ",")
}

func parseKeywords(s string) (Params, error) {
	p := Params{}
	rest := strings.TrimSpace(s)
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t\n'\\") {
			return nil, badConninfo("expected keyword = value")
		}
		value, left, err := cutValue(strings.TrimLeft(after, " \t\r\n"))
		if err != nil {
			return nil, badConninfo("value of %s: %w", key, err)
		}
		p[key], rest = value, strings.TrimLeft(left, " \t\r\n")
	}
	return p, p.check()
}

// cutValue takes one value off a keyword string: in single quotes or bare, with
// a backslash escaping the next byte in both.
func cutValue(s string) (value, rest string, err error) {
	var b strings.Builder
	quoted := strings.HasPrefix(s, "'")
	i := 0
	if quoted {
		i = 1
	}
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], nil
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", fmt.Errorf("the quote is not closed")
	}
	return b.String(), "", nil
}

// knownKeywords maps libpq's keywords to whether pgx understands them too. An
// unknown keyword would reach the server as a setting, so it is refused.
var knownKeywords = map[string]bool{
	"host": true, "port": true, "dbname": true, "user": true, "password": true, "passfile": true,
	"connect_timeout": true, "sslmode": true, "sslrootcert": true, "sslcert": true, "sslkey": true,
	"sslpassword": true, "sslsni": true, "sslnegotiation": true, "channel_binding": true,
	"target_session_attrs": true, "service": true, "servicefile": true, "krbspn": true,
	"krbsrvname": true, "application_name": true, "options": true,
	"ssl_min_protocol_version": true, "ssl_max_protocol_version": true,
	"hostaddr": false, "fallback_application_name": false, "client_encoding": false, "keepalives": false,
	"keepalives_idle": false, "keepalives_interval": false, "keepalives_count": false,
	"tcp_user_timeout": false, "gssencmode": false, "sslcrl": false, "sslcrldir": false,
	"sslcompression": false, "sslcertmode": false, "require_auth": false, "requirepeer": false,
	"gsslib": false, "gssdelegation": false, "load_balance_hosts": false, "min_protocol_version": false,
	"max_protocol_version": false,
}

func (p Params) check() error {
	for key, value := range p {
		if _, ok := knownKeywords[key]; !ok {
			return badConninfo("unknown keyword %q", key)
		}
		if strings.ContainsRune(value, 0) {
			return badConninfo("the %s holds a NUL byte", key)
		}
	}
	// In a URI, either may be part of a password that holds a / or an @.
	const escape = "(is a /, @ or : in the password written as %%2F, %%40 or %%3A?)"
	for port := range strings.SplitSeq(p["port"], ",") {
		if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
			return badConninfo("a port is not a number from 1 to 65535 " + escape)
		}
	}
	for host := range strings.SplitSeq(p["host"], ",") {
		if !strings.HasPrefix(host, "/") && strings.LastIndex(host, "@") > 0 { // @name is an abstract socket
			return badConninfo("a host has an @ in its name " + escape)
		}
	}
	return nil
}

// With returns p with the parameters of over taking precedence. Empty values
// of over count as absent.
func (p Params) With(over Params) Params {
	merged := Params{}
	for key, value := range p {
		merged[key] = value
	}
	for key, value := range over {
		if value != "" {
			merged[key] = value
		}
	}
	return merged
}

// conninfo renders keyword = 'value' pairs in a fixed order. Only the
// keywords that keep returns true for are rendered.
func (p Params) conninfo(keep func(string) bool) string {
	keys := make([]string, 0, len(p))
	for key := range p {
		if keep(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var b strings.Builder
	for _, key := range keys {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s='%s'", key, conninfoEscape.Replace(p[key]))
	}
	return b.String()
}

var conninfoEscape = strings.NewReplacer(`\`, `\\`, `'`, `\'`)
