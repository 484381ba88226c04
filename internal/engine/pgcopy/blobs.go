package pgcopy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// blobsPerTransaction bounds the locks of a transaction: each large object
// whose owner or privileges change takes one.
const blobsPerTransaction = 100

// loadLargeObjects makes the large objects, then fills them by several sessions.
func (p *replay) loadLargeObjects(ctx context.Context) error {
	lo := p.load.Contents.LargeObjects
	if lo == nil || p.load.Entries != nil {
		return nil
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	l := &loader{p, conn}
	err = p.eachBlobOwner(ctx, func(batch []blobOwner) error {
		step := fmt.Sprintf("large objects from %d", batch[0].oid)
		if p.ledger.done[step] {
			return nil
		}
		return l.transact(ctx, noted(step), func() error { return l.makeBlobs(ctx, batch) })
	})
	if err == nil {
		err = p.labelBlobs(ctx, l)
	}
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(p.load.Schema.Jobs, 1))
	for i := range lo.Data {
		c := &lo.Data[i]
		step := fmt.Sprintf("large object data from %d", c.FirstOID)
		if p.ledger.done[step] || c.Rows == 0 {
			continue
		}
		group.Go(func() error {
			conn, err := p.connect(ctx)
			if err != nil {
				return err
			}
			defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
			l := &loader{p, conn}
			return p.refused("BLOBS", p.load.Set.Reread(func() error {
				return l.transact(ctx, noted(step), func() error { return l.fillBlobs(ctx, c) })
			}))
		})
	}
	return group.Wait()
}

// blobsIn makes and fills the large objects within the transaction of l.
func (p *replay) blobsIn(ctx context.Context, l *loader) error {
	lo := p.load.Contents.LargeObjects
	if lo == nil {
		return nil
	}
	err := p.eachBlobOwner(ctx, func(batch []blobOwner) error {
		err := l.makeBlobs(ctx, batch)
		for _, labels := range p.labelsOf(batch) {
			if err == nil {
				err = l.stream.Exec(ctx, "label large objects", labels.sql)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range lo.Data {
		if err := l.fillBlobs(ctx, &lo.Data[i]); err != nil {
			return err
		}
	}
	return nil
}

// fillBlobs loads a chunk into a temporary table and writes the large objects
// from there, on the server.
func (l *loader) fillBlobs(ctx context.Context, c *backupset.Chunk) error {
	if err := l.stream.Exec(ctx, "make a temporary table", "CREATE TEMP TABLE dbbackup_blobs (oid oid, at bigint, data bytea) ON COMMIT DROP"); err != nil {
		return err
	}
	rows, err := l.copyIn(ctx, &c.Piece, "load large objects", "COPY pg_temp.dbbackup_blobs FROM STDIN (FORMAT binary)")
	if err != nil {
		return err
	}
	if rows != c.Rows {
		return fmt.Errorf("the server took %d pieces of %d", rows, c.Rows)
	}
	return l.stream.Exec(ctx, "write large objects", "SELECT lo_put(oid, at, data) FROM pg_temp.dbbackup_blobs ; DROP TABLE pg_temp.dbbackup_blobs")
}

// blobOwner is one row of the chunk with the owners.
type blobOwner struct {
	oid     uint32
	owner   string
	grants  []blobGrant
	hasACL  bool
	comment string
	labels  []blobLabel
}

type blobLabel struct {
	Provider string `json:"provider"`
	Label    string `json:"label"`
}

type blobGrant struct {
	Grantee   string `json:"grantee"`
	Privilege string `json:"privilege"`
	Grantable bool   `json:"grantable"`
}

// makeBlobs creates large objects and gives them their owners, privileges and
// comments.
func (l *loader) makeBlobs(ctx context.Context, batch []blobOwner) error {
	var sql strings.Builder
	for _, b := range batch {
		fmt.Fprintf(&sql, "SELECT lo_create(%d);\n", b.oid)
		for _, statement := range l.r.blobSQL(b) {
			sql.WriteString(statement + ";\n")
		}
	}
	return l.stream.Exec(ctx, "make large objects", sql.String())
}

// blobSQL is what gives a large object its owner, privileges and comment.
func (p *replay) blobSQL(b blobOwner) []string {
	name := fmt.Sprintf("LARGE OBJECT %d", b.oid)
	role := func(name string) string {
		if to, ok := p.load.Schema.MapRoles[name]; ok {
			name = to
		}
		return pg.QuoteFor(p.load.Contents.Encoding, name)
	}
	var sql []string
	if !p.load.Schema.NoOwner && b.owner != "" {
		sql = append(sql, fmt.Sprintf("ALTER %s OWNER TO %s", name, role(b.owner)))
	}
	if !p.load.Schema.NoACL && b.hasACL {
		if b.owner != "" && !p.load.Schema.NoOwner {
			sql = append(sql, fmt.Sprintf("REVOKE ALL ON %s FROM %s", name, role(b.owner)))
		}
		for _, g := range b.grants {
			to, option := "PUBLIC", ""
			if g.Grantee != "" {
				to = role(g.Grantee)
			}
			if g.Grantable && g.Grantee != b.owner {
				option = " WITH GRANT OPTION"
			}
			sql = append(sql, fmt.Sprintf("GRANT %s ON %s TO %s%s", g.Privilege, name, to, option))
		}
	}
	if b.comment != "" {
		sql = append(sql, fmt.Sprintf("COMMENT ON %s IS %s", name, pg.LiteralFor(p.load.Contents.Encoding, b.comment)))
	}
	return sql
}

// labelBlobs gives large objects their security labels. Of a provider that the
// server has not loaded the first refusal is enough: there may be a million more.
func (p *replay) labelBlobs(ctx context.Context, l *loader) error {
	gone := map[string]bool{}
	return p.eachBlobOwner(ctx, func(batch []blobOwner) error {
		for _, labels := range p.labelsOf(batch) {
			step := fmt.Sprintf("labels of large objects from %d for %s", batch[0].oid, labels.provider)
			if gone[labels.provider] || p.ledger.done[step] {
				continue
			}
			err := l.transact(ctx, noted(step), func() error { return l.stream.Exec(ctx, "label large objects", labels.sql) })
			if err == nil {
				continue
			}
			gone[labels.provider] = true
			object := fmt.Sprintf("SECURITY LABEL FOR %s ON LARGE OBJECT %d, and all after it", pgname.Printable(labels.provider), labels.first)
			if err := p.refused(object, err); err != nil {
				return err
			}
		}
		return nil
	})
}

// providerLabels are the labels that one provider has given to some large objects.
type providerLabels struct {
	provider, sql string
	first         uint32 // the first of those large objects
}

// labelsOf are the statements that give large objects their labels, by provider.
func (p *replay) labelsOf(batch []blobOwner) []providerLabels {
	var all []providerLabels
	for _, b := range batch {
		for _, label := range b.labels {
			i := slices.IndexFunc(all, func(of providerLabels) bool { return of.provider == label.Provider })
			if i < 0 {
				i, all = len(all), append(all, providerLabels{provider: label.Provider, first: b.oid})
			}
			all[i].sql += fmt.Sprintf("SECURITY LABEL FOR %s ON LARGE OBJECT %d IS %s;\n",
				pg.QuoteFor(p.load.Contents.Encoding, label.Provider), b.oid, pg.LiteralFor(p.load.Contents.Encoding, label.Label))
		}
	}
	return all
}

// eachBlobOwner reads the owners, some at a time.
func (p *replay) eachBlobOwner(ctx context.Context, fn func(batch []blobOwner) error) error {
	metadata := &p.load.Contents.LargeObjects.Metadata
	if metadata.Rows == 0 {
		return nil
	}
	in, err := p.openPiece(ctx, &metadata.Piece)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	lines := bufio.NewReader(in)
	var batch []blobOwner
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			b, bad := parseBlobOwner(strings.TrimSuffix(line, "\n"))
			if bad != nil {
				return damagedPiece("owners of large objects", bad)
			}
			batch = append(batch, b)
		}
		if len(batch) == blobsPerTransaction || errors.Is(err, io.EOF) && len(batch) > 0 {
			if err := fn(batch); err != nil {
				return err
			}
			batch = nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// parseBlobOwner reads a line of COPY's text form.
func parseBlobOwner(line string) (b blobOwner, err error) {
	fields := strings.Split(line, "\t")
	if len(fields) != 4 && len(fields) != 5 {
		return b, fmt.Errorf("a row has %d fields in place of 4 or 5", len(fields))
	}
	for i := range fields {
		fields[i] = unescapeText(fields[i])
	}
	oid, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil {
		return b, err
	}
	b = blobOwner{oid: uint32(oid), owner: fields[1], hasACL: fields[2] != "", comment: fields[3]}
	if b.hasACL {
		err = json.Unmarshal([]byte(fields[2]), &b.grants)
	}
	if err == nil && len(fields) == 5 && fields[4] != "" {
		err = json.Unmarshal([]byte(fields[4]), &b.labels)
	}
	return b, err
}

// unescapeText undoes the escapes that COPY writes (PostgreSQL manual, COPY,
// "Text Format").
func unescapeText(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if at := strings.IndexByte("bfnrtv", s[i]); at >= 0 {
			b.WriteByte("\b\f\n\r\t\v"[at])
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
