package pgtest

import "strings"

// Option changes how a cluster is made.
type Option func(*config)

type config struct {
	major      int
	dir        string
	port       int
	settings   []string // lines of configuration
	initdbArgs []string
	hba        []string
	tlsHosts   []string
	password   string
	detached   bool
	template   *Cluster // whose data is copied; nil: initdb makes it
}

// WithMajor asks for a major version of PostgreSQL, e.g. 15.
func WithMajor(major int) Option {
	return func(c *config) { c.major = major }
}

// WithSetting sets a configuration parameter. The value is quoted here.
func WithSetting(name, value string) Option {
	return func(c *config) { c.settings = append(c.settings, settingLine(name, value)) }
}

// WithInitdbArgs adds arguments to initdb; later ones win.
func WithInitdbArgs(args ...string) Option {
	return func(c *config) { c.initdbArgs = append(c.initdbArgs, args...) }
}

// WithHBA puts lines before those of pg_hba.conf that ask everybody for a SCRAM
// password, so that these decide first.
func WithHBA(lines ...string) Option {
	return func(c *config) { c.hba = append(c.hba, lines...) }
}

// WithTLS makes the server offer TLS with a certificate for the hosts (names or
// addresses; 127.0.0.1 and localhost where none is given), signed by the
// authority in Cluster.CAFile.
func WithTLS(hosts ...string) Option {
	return func(c *config) {
		if len(hosts) == 0 {
			hosts = []string{"127.0.0.1", "localhost"}
		}
		c.tlsHosts = hosts
	}
}

// WithPort asks for a port instead of any free one.
func WithPort(port int) Option {
	return func(c *config) { c.port = port }
}

// WithPassword sets the superuser's password instead of a random one.
func WithPassword(password string) Option {
	return func(c *config) { c.password = password }
}

// Detached makes the cluster in dir, which must not exist, and lets its server
// outlive this process. Attach finds it again; Close on either ends it.
func Detached(dir string) Option {
	return func(c *config) { c.dir, c.detached = dir, true }
}

// like makes the cluster a copy of a template.
func like(template *Cluster) Option {
	return func(c *config) { c.template = template }
}

func settingLine(name, value string) string {
	return name + " = '" + strings.ReplaceAll(value, "'", "''") + "'"
}
