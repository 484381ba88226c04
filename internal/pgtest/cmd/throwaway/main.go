// Throwaway gives shell scripts the clusters that tests use.
//
//	throwaway start [-major N] [-port N] [-like OTHER] DIR
//	                                           make a cluster in DIR and leave it running;
//	                                           -like: with the password of another one
//	throwaway env DIR                          print its PGHOST, PGPORT, PGUSER, PGPASSWORD and PGBIN for eval
//	throwaway stop DIR                         stop it and remove DIR
//	throwaway compare DIR_A DIR_B              compare two clusters, every table of every database
//
// Compare prints one line for each difference and exits with 1 when there are
// any. The password is in DIR/cluster.json, which only its owner can read.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

var errUsage = errors.New("usage: throwaway start [-major N] [-port N] [-like OTHER] DIR | env DIR | stop DIR | compare DIR_A DIR_B")

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "throwaway:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	switch verb, args := args[0], args[1:]; {
	case verb == "start":
		return start(args)
	case verb == "env" && len(args) == 1:
		return printEnv(args[0], stdout)
	case verb == "stop" && len(args) == 1:
		c, err := pgtest.Attach(args[0])
		if err != nil {
			return err
		}
		return c.Close()
	case verb == "compare" && len(args) == 2:
		return compare(ctx, args[0], args[1], stdout)
	default:
		return errUsage
	}
}

func start(args []string) error {
	flags := flag.NewFlagSet("start", flag.ContinueOnError)
	major := flags.Int("major", 0, "major version of PostgreSQL; 0: the newest installed")
	port := flags.Int("port", 0, "port; 0: any free one")
	like := flags.String("like", "", "a cluster whose password the new one gets")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		return errUsage
	}
	opts := []pgtest.Option{pgtest.Detached(flags.Arg(0)), pgtest.WithMajor(*major), pgtest.WithPort(*port)}
	if *like != "" {
		other, err := pgtest.Attach(*like)
		if err != nil {
			return err
		}
		opts = append(opts, pgtest.WithPassword(other.Password))
	}
	c, err := pgtest.Open(opts...)
	if err != nil {
		return err
	}
	if err := c.Save(); err != nil {
		return errors.Join(err, c.Close())
	}
	return nil
}

func printEnv(dir string, stdout io.Writer) error {
	c, err := pgtest.Attach(dir)
	if err != nil {
		return err
	}
	for _, kv := range append(c.Env(), "PGBIN="+c.BinDir) {
		name, value, _ := strings.Cut(kv, "=")
		if _, err := fmt.Fprintf(stdout, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`)); err != nil {
			return err
		}
	}
	return nil
}

func compare(ctx context.Context, dirA, dirB string, stdout io.Writer) error {
	a, err := pgtest.Attach(dirA)
	if err != nil {
		return err
	}
	b, err := pgtest.Attach(dirB)
	if err != nil {
		return err
	}
	differences, err := zoo.DiffClusters(ctx, a, b)
	if err != nil {
		return err
	}
	for _, d := range differences {
		if _, err := fmt.Fprintln(stdout, d); err != nil {
			return err
		}
	}
	if len(differences) > 0 {
		return fmt.Errorf("%d differences", len(differences))
	}
	return nil
}
