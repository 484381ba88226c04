package zoo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"dbbackup/internal/pgtest"
)

// diffSchemas compares two schema dumps entry by entry, both made by the newer
// server's pg_dump. Servers of two major versions print the same view, privilege
// or procedure differently: of these only the names of the entries are compared.
func diffSchemas(ctx context.Context, a *pgtest.Cluster, dbA string, b *pgtest.Cluster, dbB string) ([]string, error) {
	bin := a.BinDir
	if b.VersionNum > a.VersionNum {
		bin = b.BinDir
	}
	schemaA, err := dumpSchema(ctx, bin, a, dbA)
	if err != nil {
		return nil, err
	}
	schemaB, err := dumpSchema(ctx, bin, b, dbB)
	if err != nil {
		return nil, err
	}
	if a.VersionNum/10000 != b.VersionNum/10000 {
		schemaA, schemaB = namesOnly(schemaA), namesOnly(schemaB)
	}
	return diffFacts(schemaA, schemaB), nil
}

// namesOnly keeps the entries without their text. From 14 on, the signature of a
// procedure spells IN out.
func namesOnly(entries facts) facts {
	names := facts{}
	for key := range entries {
		names[strings.NewReplacer("(IN ", "(", ", IN ", ", ").Replace(key)] = "there"
	}
	return names
}

// dumpSchema returns the entries of a schema dump. The database's name travels
// in the environment, where it is never taken for a connection string.
func dumpSchema(ctx context.Context, bin string, c *pgtest.Cluster, db string) (facts, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "pg_dump"), "--schema-only")
	cmd.Env = append(os.Environ(), append(c.Env(), "PGDATABASE="+db)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("dump schema of database %q: %w: %s", db, err, stderr.Bytes())
	}
	return schemaEntries(stdout.String()), nil
}

var (
	entryHeader  = regexp.MustCompile(`^-- Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: `)
	defaultPlace = regexp.MustCompile(`^SET default_(tablespace|table_access_method) = (.*);$`)
	policyRoles  = regexp.MustCompile(`^(CREATE POLICY .*? TO )(.*?)((?: USING | WITH CHECK |;).*)$`)
	volatileLine = regexp.MustCompile(`^(\\(un)?restrict .*|-- Dumped (from|by) .*|--|)$`)
)

// schemaEntries splits a plain schema dump into its entries. Their order, which
// follows OIDs where names are equal, does not count.
func schemaEntries(dump string) facts {
	entries := map[string][]string{}
	places := map[string]string{}
	key := "preamble"
	var lines []string
	flush := func() {
		entries[key] = append(entries[key], strings.Join(lines, "\n"))
		lines = nil
	}
	for line := range strings.Lines(dump) {
		line = strings.TrimSuffix(line, "\n")
		if m := entryHeader.FindStringSubmatch(line); m != nil {
			flush()
			key = m[2] + " " + m[3] + "." + m[1]
			lines = placeOf(m[2], places)
		} else if m := defaultPlace.FindStringSubmatch(line); m != nil {
			places[m[1]] = m[2]
		} else if !volatileLine.MatchString(line) {
			lines = append(lines, sortPolicyRoles(line))
		}
	}
	flush()
	found := facts{}
	for key, texts := range entries {
		slices.Sort(texts)
		found[key] = "\n" + strings.Join(texts, "\n") + "\n"
	}
	return found
}

// sortPolicyRoles puts the roles of a policy in order: pg_dump names them as it
// meets them in pg_roles, which is another order in every cluster.
func sortPolicyRoles(line string) string {
	m := policyRoles.FindStringSubmatch(line)
	if m == nil {
		return line
	}
	roles := strings.Split(m[2], ", ")
	slices.Sort(roles)
	return m[1] + strings.Join(roles, ", ") + m[3]
}

// placeOf returns the settings that an entry of the kind depends on: a dump
// writes them only when they change, which would make entries depend on their
// order.
func placeOf(kind string, places map[string]string) []string {
	switch kind {
	case "TABLE", "MATERIALIZED VIEW":
		return []string{"-- tablespace " + places["tablespace"] + ", access method " + places["table_access_method"]}
	case "INDEX", "CONSTRAINT":
		return []string{"-- tablespace " + places["tablespace"]}
	default:
		return nil
	}
}
