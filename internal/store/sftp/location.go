package sftp

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"dbbackup/internal/fault"
)

// location is what a URL of a store says.
type location struct {
	user        string
	host        string
	port        string
	path        string // absolute, or below the folder that the server logs in to
	connections int    // at most so many at once
	silence     time.Duration
}

const (
	defaultPort        = "22"
	defaultConnections = 4
	defaultSilence     = time.Minute

	urlHint = "write sftp://USER@HOST/ABSOLUTE/PATH, or sftp://USER@HOST/~/PATH below the login folder"
)

// locate reads sftp://user@host:port/absolute/path and sftp://user@host/~/path.
// The text of the URL is in no error: it may hold a password.
func locate(u *url.URL, user string) (location, error) {
	loc := location{user: user, host: u.Hostname(), port: u.Port(), connections: defaultConnections, silence: defaultSilence}
	if u.User != nil {
		if _, ok := u.User.Password(); ok {
			return loc, fault.New(fault.Usage, "set DBBACKUP_SFTP_PASSWORD or DBBACKUP_SFTP_PASSWORD_FILE, or better use a key",
				"the URL of the store on %s holds a password, which every user of this machine can read", loc.host)
		}
		loc.user = u.User.Username()
	}
	if loc.port == "" {
		loc.port = defaultPort
	}
	err := errors.Join(loc.check(u), loc.setPath(u.Path), loc.setQuery(u))
	if err != nil {
		return loc, fault.New(fault.Usage, urlHint, "URL of the store on %s: %w", loc.host, err)
	}
	return loc, nil
}

func (l *location) check(u *url.URL) error {
	switch {
	case u.Scheme != "sftp":
		return fmt.Errorf("the scheme is %q, not sftp", u.Scheme)
	case l.host == "":
		return errors.New("it names no host")
	case l.user == "":
		return errors.New("it names no user")
	case u.Fragment != "":
		return errors.New("it has a fragment: write # as %23")
	}
	return nil
}

func (l *location) setPath(name string) error {
	segments := strings.Split(name, "/")
	switch {
	case name == "":
		return errors.New("it names no folder")
	case strings.ContainsRune(name, 0):
		return errors.New("its path holds a NUL")
	case slices.Contains(segments, ".."):
		return errors.New("its path leads upwards")
	}
	if len(segments) > 1 && segments[1] == "~" {
		name = strings.Join(segments[2:], "/")
	}
	l.path = path.Clean(name)
	return nil
}

func (l *location) setQuery(u *url.URL) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("its query cannot be read")
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		value := query.Get(key)
		switch key {
		case "connections":
			if l.connections, err = strconv.Atoi(value); err != nil || l.connections < 1 || l.connections > 16 {
				return errors.New("connections is not a number from 1 to 16")
			}
		case "timeout":
			if l.silence, err = time.ParseDuration(value); err != nil || l.silence < time.Second || l.silence > time.Hour {
				return errors.New("timeout is not a time from 1s to 1h")
			}
		default:
			return fmt.Errorf("it has the unknown parameter %q (known: connections, timeout)", key)
		}
	}
	return nil
}

// address is what a connection is made to.
func (l *location) address() string { return net.JoinHostPort(l.host, l.port) }

// String is the location as its user wrote it, in its shortest form.
func (l *location) String() string {
	u := url.URL{Scheme: "sftp", User: url.User(l.user), Host: l.host, Path: l.path}
	if strings.Contains(l.host, ":") {
		u.Host = "[" + l.host + "]"
	}
	if l.port != defaultPort {
		u.Host = l.address()
	}
	if !path.IsAbs(l.path) {
		u.Path = path.Join("/~", l.path)
	}
	return u.String()
}
