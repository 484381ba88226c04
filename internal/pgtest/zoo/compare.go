package zoo

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"dbbackup/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

// Compare fails the test with every difference between two databases.
func Compare(tb testing.TB, a *pgtest.Cluster, dbA string, b *pgtest.Cluster, dbB string) {
	tb.Helper()
	differences, err := Diff(context.Background(), a, dbA, b, dbB)
	report(tb, fmt.Sprintf("databases %q and %q", dbA, dbB), differences, err)
}

// CompareGlobals fails the test with every difference between the roles, the
// memberships and the tablespaces of two clusters. Where a tablespace lies is
// no difference.
func CompareGlobals(tb testing.TB, a, b *pgtest.Cluster) {
	tb.Helper()
	differences, err := DiffGlobals(context.Background(), a, b)
	report(tb, "globals", differences, err)
}

func report(tb testing.TB, what string, differences []string, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("compare %s: %v", what, err)
	}
	for _, d := range differences {
		tb.Errorf("%s differ: %s", what, d)
	}
}

// Diff returns the differences between two databases, one line or entry each,
// or nothing when they are equal. The databases must not change meanwhile.
func Diff(ctx context.Context, a *pgtest.Cluster, dbA string, b *pgtest.Cluster, dbB string) ([]string, error) {
	differences, err := diffSchemas(ctx, a, dbA, b, dbB)
	if err != nil {
		return nil, err
	}
	factsA, err := databaseFacts(ctx, a, dbA, min(a.VersionNum, b.VersionNum))
	if err != nil {
		return nil, fmt.Errorf("read database %q: %w", dbA, err)
	}
	factsB, err := databaseFacts(ctx, b, dbB, min(a.VersionNum, b.VersionNum))
	if err != nil {
		return nil, fmt.Errorf("read database %q: %w", dbB, err)
	}
	return append(differences, diffFacts(factsA, factsB)...), nil
}

// DiffGlobals is Diff for what belongs to no database.
func DiffGlobals(ctx context.Context, a, b *pgtest.Cluster) ([]string, error) {
	version := min(a.VersionNum, b.VersionNum)
	factsA, err := globalFacts(ctx, a, version)
	if err != nil {
		return nil, err
	}
	factsB, err := globalFacts(ctx, b, version)
	if err != nil {
		return nil, err
	}
	return diffFacts(factsA, factsB), nil
}

// DiffClusters is DiffGlobals and Diff for every database but template0. Each
// line begins with the database it is about.
func DiffClusters(ctx context.Context, a, b *pgtest.Cluster) ([]string, error) {
	differences, err := DiffGlobals(ctx, a, b)
	if err != nil {
		return nil, err
	}
	namesA, err := databases(ctx, a)
	if err != nil {
		return nil, err
	}
	namesB, err := databases(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, name := range namesA {
		if !slices.Contains(namesB, name) {
			differences = append(differences, fmt.Sprintf("database %q: only in the first cluster", name))
			continue
		}
		found, err := Diff(ctx, a, name, b, name)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			differences = append(differences, fmt.Sprintf("database %q: %s", name, d))
		}
	}
	for _, name := range namesB {
		if !slices.Contains(namesA, name) {
			differences = append(differences, fmt.Sprintf("database %q: only in the second cluster", name))
		}
	}
	return differences, nil
}

func databases(ctx context.Context, c *pgtest.Cluster) ([]string, error) {
	conn, err := c.Dial(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT datname::text FROM pg_database WHERE datname <> 'template0' ORDER BY 1")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
