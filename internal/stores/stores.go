package stores

import (
	"context"
	"net/url"
	"strings"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/store/bucket"
	"dbbackup/internal/store/dir"
	"dbbackup/internal/store/sftp"
)

// Options are what opening a store needs to know.
type Options struct {
	Create bool     // make a folder that is not there yet; buckets are never made
	Env    []string // where credentials may be
	// Warn is told what went wrong and is tried again. nil: nobody is.
	Warn func(text string)
}

// lookup finds a variable in the environment.
func (o Options) lookup(name string) string {
	for _, kv := range o.Env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// kinds are the schemes of URLs, and what each is followed by.
var kinds = []struct{ scheme, form string }{
	{"file", "file:///FOLDER"},
	{"s3", "s3://BUCKET/PREFIX"},
	{"gs", "gs://BUCKET/PREFIX"},
	{"azblob", "azblob://CONTAINER/PREFIX"},
	{"sftp", "sftp://USER@HOST/FOLDER"},
}

// Open opens the store called ref. The caller closes it. What is wrong with a URL
// is fault.Usage and never repeats a password that stands in it.
func Open(ctx context.Context, ref string, o Options) (store.Place, error) {
	u, err := Parse(ref)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "file":
		return dir.Open(u.Path, o.Create)
	case "s3", "gs", "azblob":
		return bucket.Open(ctx, u, bucket.Options{Warn: o.Warn, Getenv: o.lookup})
	case "sftp":
		options := sftp.Environment(o.lookup)
		options.Create = o.Create
		return sftp.Open(ctx, u, options)
	}
	return nil, unknown(u.Scheme)
}

// Folder returns the path of a store that is a folder of this machine.
func Folder(ref string) (path string, ok bool) {
	u, err := Parse(ref)
	if err != nil || u.Scheme != "file" {
		return "", false
	}
	return u.Path, true
}

// Parse reads what a user calls a store. A path becomes a URL of scheme file, as
// it is: relative ones stay so.
func Parse(ref string) (*url.URL, error) {
	if ref == "" {
		return nil, fault.New(fault.Usage, "--store DIR, or a URL: "+forms(), "no store named")
	}
	if !strings.Contains(ref, "://") {
		return &url.URL{Scheme: "file", Path: ref}, nil
	}
	u, err := url.Parse(ref)
	if err != nil {
		return nil, fault.New(fault.Usage, "known are a folder's path, and "+forms(), "the URL of the store cannot be read") // err repeats it, passwords and all
	}
	if _, has := u.User.Password(); has {
		return nil, fault.New(fault.Usage, "leave it out: the pages on stores in docs say where credentials go",
			"the URL of the store %s://%s holds a password, which every user of this machine could read", u.Scheme, u.Host)
	}
	if u.Scheme == "file" && (u.Host != "" || u.Path == "") {
		return nil, fault.New(fault.Usage, "file:///FOLDER has three slashes", "the store %s names no folder of this machine", ref)
	}
	for _, k := range kinds {
		if k.scheme == u.Scheme {
			return u, nil
		}
	}
	return nil, unknown(u.Scheme)
}

func unknown(scheme string) error {
	return fault.New(fault.Usage, "known are a folder's path, and "+forms(), "no kind of store is called %q", scheme)
}

func forms() string {
	list := make([]string, 0, len(kinds))
	for _, k := range kinds {
		list = append(list, k.form)
	}
	return strings.Join(list, ", ")
}
