package pgtool

import (
	"maps"
	"slices"
	"strings"
)

// Environ is the environment for a child: base without what must not reach it,
// and with extra. An extra value replaces base's; an empty one removes the
// variable.
//
// Removed are this tool's own variables (DBBACKUP_*, which hold secrets) and
// PGDATABASE, which would choose a database where a command names none. The
// messages' language is set to C, because names are read from them.
func Environ(base []string, extra map[string]string) []string {
	set := map[string]string{}
	for _, entry := range base {
		name, value, ok := strings.Cut(entry, "=")
		if ok && !removed(name) {
			set[name] = value
		}
	}
	set["LC_ALL"], set["LANG"] = "C", "C"
	for name, value := range extra {
		if value == "" {
			delete(set, name)
			continue
		}
		set[name] = value
	}
	env := make([]string, 0, len(set))
	for _, name := range slices.Sorted(maps.Keys(set)) {
		env = append(env, name+"="+set[name])
	}
	return env
}

func removed(name string) bool {
	return name == "PGDATABASE" || name == "LANGUAGE" || strings.HasPrefix(name, "DBBACKUP_")
}
