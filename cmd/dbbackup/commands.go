package main

import "github.com/urfave/cli/v2"

// commands lists all that the program does, in the order of its help.
func (a *application) commands() []*cli.Command {
	return []*cli.Command{
		a.group("backup", "capture a cluster or one database into a new backup set", a.backupClusterCommand(), a.backupSingleCommand()),
		a.group("restore", "bring databases of a backup set back", a.restoreClusterCommand(), a.restoreSingleCommand()),
		a.command("resume", "go on with a chunked backup that was interrupted, by default the newest", "[SET]",
			exampleLines("resume --store /backup", "resume cluster-20260102T030405Z -h db1 -U backup"),
			join(captureFlags(), runFlags(), resumeKeyFlags(), connectionFlags(), outputFlags()), a.resume),
		a.command("verify", "read every byte of a set, by default the latest, and say what is wrong; --drill also restores it", "[SET]",
			exampleLines("verify --store /backup", "verify cluster-20260102T0304 --quick", "verify --drill"),
			join(verifyFlags(), keyFlags(), outputFlags()), a.verify),
		a.command("list", "list the sets of the store, oldest first", "",
			exampleLines("list --store /backup", "list --json"), join(keyFlags(), outputFlags()), a.list),
		a.command("show", "show what a set, by default the latest, holds", "[SET]",
			exampleLines("show --store /backup", "show cluster-20260102T030405Z --json"), join(keyFlags(), outputFlags()), a.show),
		a.command("copy", "bring sets, by default the latest, to another store, with the older sets that they need", "[SET]...",
			exampleLines("copy --from /backup --to /mnt/other", "copy --all --from /backup --to /mnt/other"),
			join(copyFlags(), outputFlags()), a.copySets),
		a.command("prune", "remove the sets that a policy does not keep, once the newest is known to be sound", "",
			exampleLines("prune --keep-daily 7 --keep-weekly 5 --dry-run", "prune --keep-last 3 --json"),
			join(under("Prune", []cli.Flag{
				onceFlag("dry-run", "say what would be removed, and change nothing"), metricsFlag(),
			}), retentionFlags(), keyFlags(), outputFlags()), a.prune),
		a.keyCommand(),
		a.command("gc", "remove what killed runs left in the store", "", exampleLines("gc --store /backup"), nil, a.gc),
		a.command("probe", "say what a backup would do with each database, and why", "",
			exampleLines("probe", "probe -h db1 -U backup --json"), join(captureFlags(), connectionFlags(), outputFlags()), a.probe),
		a.command("doctor", "look for what is wrong with this host, the tools, the store and the server", "",
			exampleLines("doctor --store /backup", "doctor -h db1 -U backup"),
			join(under("Doctor", []cli.Flag{stringFlag("postgres-user", "the `USER` that runs the server", "postgres")}), connectionFlags(), outputFlags()), a.doctor),
		a.command("config", "print the effective configuration as a config file", "",
			exampleLines("config", "config --config new.yaml --mode plain"),
			join(captureFlags(), runFlags(), sealingFlags(), retentionFlags(), excludeDatabasesFlags(), connectionFlags()), a.printConfig),
		a.command("completion", "print the completion script of a shell: bash or zsh", "SHELL",
			"source <(dbbackup completion bash)\ndbbackup completion zsh > /usr/local/share/zsh/site-functions/_dbbackup", nil, a.completion),
		a.command("version", "print the version", "", exampleLines("version --json"), outputFlags(), a.printVersion),
	}
}

func (a *application) backupClusterCommand() *cli.Command {
	return a.command("cluster", "every database, roles, tablespaces and the server's settings", "",
		exampleLines("backup cluster --store /backup", "backup cluster --mode directory -j4 --exclude-db 'test_*'"),
		join(captureFlags(), runFlags(), sealingFlags(), retentionFlags(), excludeDatabasesFlags(), connectionFlags(), outputFlags()), a.backupCluster)
}

func (a *application) backupSingleCommand() *cli.Command {
	return a.command("single", "one database, with the roles that it needs", "NAME",
		exampleLines("backup single app --store /backup", "backup single app --exclude-table 'audit.*' -h db1 -U backup"),
		join(captureFlags(), selectionFlags(), exclusionFlags(), runFlags(), sealingFlags(), retentionFlags(), connectionFlags(), outputFlags()), a.backupSingle)
}

func (a *application) restoreClusterCommand() *cli.Command {
	return a.command("cluster", "roles, tablespaces and every database of a set", "",
		exampleLines("restore cluster --store /backup -h newserver --dry-run", "restore cluster --set cluster-20260102T0304 -j4"),
		join(restoreFlags(), keyFlags(), connectionFlags(), outputFlags()), a.restoreCluster)
}

func (a *application) restoreSingleCommand() *cli.Command {
	return a.command("single", "one database, or some of its tables", "NAME",
		exampleLines("restore single app --target-db app_yesterday", "restore single app --table public.orders --target-db app_orders"),
		join(restoreFlags(), singleRestoreFlags(), selectionFlags(), keyFlags(), connectionFlags(), outputFlags()), a.restoreSingle)
}
