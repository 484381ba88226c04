package bucket

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// location is a store's URL, taken apart.
type location struct {
	kind   string // the scheme
	bucket string
	prefix string // empty, or with a slash at its end
	values url.Values
	text   string // the URL as its user gave it
}

// keysOf are the query keys that each kind understands.
var keysOf = map[string][]string{
	"s3":     {"attempts", "checksums", "endpoint", "object-lock", "path-style", "profile", "region", "retain", "stall"},
	"gs":     {"attempts", "endpoint", "stall"},
	"azblob": {"account", "attempts", "endpoint", "stall"},
}

// Schemes are the schemes of the URLs that Open takes.
func Schemes() []string { return []string{"s3", "gs", "azblob"} }

func usage(hint, format string, args ...any) error {
	return fault.New(fault.Usage, hint, format, args...)
}

// parse refuses whatever it does not understand: a key that is misspelled would
// otherwise be a setting that is silently not made. It never quotes a URL that
// may hold a secret.
func parse(u *url.URL) (location, error) {
	const form = "the form is SCHEME://BUCKET/PREFIX?KEY=VALUE, see docs/store-s3.md, store-gcs.md and store-azure.md"
	known, ok := keysOf[u.Scheme]
	switch {
	case !ok:
		return location{}, usage(form, "there is no kind of store called %q", u.Scheme)
	case u.User != nil:
		return location{}, usage("give credentials by the environment or the service's own files, and nothing before the bucket's name",
			"the URL of the store holds credentials")
	case u.Opaque != "", u.Fragment != "", u.Host == "", strings.ContainsAny(u.Host, ":@"):
		return location{}, usage(form, "the URL of the store is not understood")
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return location{}, usage(form, "the query of the store's URL is not understood")
	}
	for key, all := range values {
		if !slices.Contains(known, key) {
			return location{}, usage("known are: "+strings.Join(known, ", "), "the URL of the store has an unknown key %q", key)
		}
		if len(all) != 1 || all[0] == "" {
			return location{}, usage("give each key once, with a value", "the key %q of the store's URL needs one value", key)
		}
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		if err := checkKey(prefix); err != nil {
			return location{}, usage("choose another prefix", "the prefix of the store: %w", err)
		}
		prefix += "/"
	}
	place := location{kind: u.Scheme, bucket: u.Host, prefix: prefix, values: values, text: u.String()}
	if _, err := place.endpoint(); err != nil {
		return location{}, err // text may not be shown
	}
	return place, nil
}

// checkKey refuses what store.CheckKey refuses, and what the services or the
// library that talks to them would change.
func checkKey(key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	control := func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' || r == '\uFFFD' }
	switch {
	case len(key) > 900: // the services take 1,024 bytes, prefix included
		return fmt.Errorf("key %.40q... is longer than 900 bytes", key)
	case strings.ContainsFunc(key, control), strings.Contains(key, "../"), strings.Contains(key, "__0x"):
		return fmt.Errorf("key %q holds what object stores do not keep", key)
	}
	return nil
}

// endpoint returns the URL of the service, nil for its ordinary one.
func (l location) endpoint() (*url.URL, error) {
	text := l.values.Get("endpoint")
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, usage("for example endpoint=https://s3.example.org", "the endpoint of the store is no http or https URL")
	}
	if u.User != nil {
		return nil, usage("give credentials by the environment or the service's own files", "the endpoint of the store holds credentials")
	}
	return u, nil
}

// plain says that an endpoint's requests can be read on their way: it is not
// encrypted and not this machine's.
func plain(endpoint *url.URL) bool {
	if endpoint == nil || endpoint.Scheme != "http" {
		return false
	}
	addr, err := netip.ParseAddr(endpoint.Hostname())
	return endpoint.Hostname() != "localhost" && (err != nil || !addr.IsLoopback())
}

func (l location) flag(key string, otherwise bool) (bool, error) {
	text := l.values.Get(key)
	if text == "" {
		return otherwise, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, usage("give true or false", "the key %q of the store's URL is neither true nor false", key)
	}
	return value, nil
}

// retain reads a period of whole days, such as 30d, or a duration such as 36h.
func (l location) retain() (time.Duration, error) {
	text := l.values.Get("retain")
	days, isDays := strings.CutSuffix(text, "d")
	var period time.Duration
	var err error
	if isDays {
		var n int
		n, err = strconv.Atoi(days)
		period = time.Duration(n) * 24 * time.Hour
		if n > 36500 { // a hundred years: the next digit is a mistake, or overflows
			period = 0
		}
	} else {
		period, err = time.ParseDuration(text)
	}
	if err != nil || period <= 0 {
		return 0, usage("for example retain=30d", "the key \"retain\" of the store's URL is no period")
	}
	return period, nil
}

// patience puts what the URL says of failing requests in the place of the options.
func (l location) patience(o Options) (Options, error) {
	if text := l.values.Get("attempts"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return o, usage("for example attempts=20", "the key \"attempts\" of the store's URL is no number from 1 to 1000")
		}
		o.Attempts = n
	}
	if text := l.values.Get("stall"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second {
			return o, usage("for example stall=5m", "the key \"stall\" of the store's URL is no time of a second or more")
		}
		o.Stall = d
	}
	return o, nil
}
