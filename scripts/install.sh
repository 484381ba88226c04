#!/usr/bin/env bash
#
# install.sh: install dbbackup from this source tree, or remove it again.
# `make install` calls it; it also works alone.
#
# Usage: install.sh [--uninstall] [--binary FILE]
#
#   --binary FILE   the program to install (default bin/dbbackup of this tree)
#   --uninstall     remove what was installed; configuration and backups stay
#
# Environment: PREFIX (default /usr/local) and DESTDIR (default none), a folder
# to put everything into for packages; then nothing outside it is touched.
#
# Installs the program, shell completions where the program prints them, the
# systemd service and timer (neither enabled), a cron example, tune-host.sh,
# restore-chunked.sh, decrypt-set.sh, and /etc/dbbackup/config.yaml unless there is one.
#
# Exit codes: 0 ok, 1 something did not work, 2 usage, 14 nothing to install.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
readonly here
prefix=${PREFIX:-/usr/local}
readonly destdir=${DESTDIR:-}
binary=$here/../bin/dbbackup
action=install

die() { # CODE TEXT
  printf 'install.sh: %s\n' "$2" >&2
  exit "$1"
}

while (($#)); do
  case $1 in
    --uninstall) action=uninstall ;;
    --binary)
      (($# >= 2)) || die 2 '--binary needs a file'
      binary=$2
      shift
      ;;
    -h | --help)
      sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *) die 2 "unknown argument $1; see --help" ;;
  esac
  shift
done
[[ $prefix == /* ]] || die 2 "PREFIX=$prefix is not absolute"
# It is written into a unit file and a cron table as it is.
[[ $prefix =~ ^[A-Za-z0-9/._-]+$ ]] || die 2 "PREFIX=$prefix has characters that unit files treat specially"

readonly bin=$destdir$prefix/bin/dbbackup
readonly libexec=$destdir$prefix/libexec/dbbackup
readonly doc=$destdir$prefix/share/doc/dbbackup
readonly units=$destdir$prefix/lib/systemd/system
readonly bash_completion=$destdir$prefix/share/bash-completion/completions/dbbackup
readonly zsh_completion=$destdir$prefix/share/zsh/site-functions/_dbbackup
readonly etc=$destdir/etc/dbbackup
readonly store=$destdir/var/backups/dbbackup

# adapted copies a file with this prefix instead of /usr/local.
adapted() { # SOURCE TARGET
  mkdir -p "${2%/*}"
  sed "s|/usr/local|$prefix|g" "$1" >"$2.new"
  chmod 0644 "$2.new"
  mv -f "$2.new" "$2"
}

# completion installs what `dbbackup completion SHELL` prints. A program
# without that command, or for another machine, has none to install.
completion() { # SHELL TARGET
  local script
  if ! script=$("$binary" completion "$1" 2>/dev/null </dev/null) || [[ -z $script ]]; then
    printf 'no %s completion: the program prints none\n' "$1"
    return
  fi
  mkdir -p "${2%/*}"
  printf '%s\n' "$script" >"$2"
  chmod 0644 "$2"
}

# for_postgres gives a path to the server's user or group, where this is a
# host that has them and not a package's folder.
for_postgres() { # OWNER PATH
  if [[ -z $destdir && $EUID -eq 0 ]] && getent passwd postgres >/dev/null; then
    chown "$1" "$2"
  fi
}

install_config() {
  install -d -m 0755 "$etc"
  install -D -m 0644 "$here/config.example.yaml" "$doc/config.example.yaml"
  if [[ -e $etc/config.yaml ]]; then
    printf 'kept %s\n' "$etc/config.yaml"
    return
  fi
  install -m 0640 "$here/config.example.yaml" "$etc/config.yaml"
  for_postgres root:postgres "$etc/config.yaml"
}

# install_store makes the store's folder: systemd refuses to start a unit
# whose ReadWritePaths= do not exist.
install_store() {
  if [[ -d $store ]]; then return; fi
  install -d -m 0755 "${store%/*}"
  install -d -m 0700 "$store"
  for_postgres postgres:postgres "$store"
}

reload_systemd() {
  if [[ -z $destdir && $EUID -eq 0 && -d /run/systemd/system ]]; then systemctl daemon-reload; fi
}

install_all() {
  [[ -f $binary && -x $binary ]] || die 14 "no program at $binary; run make build first, or name one with --binary"
  install -D -m 0755 "$binary" "$bin.new"
  mv -f "$bin.new" "$bin" # a running one keeps its file
  completion bash "$bash_completion"
  completion zsh "$zsh_completion"
  adapted "$here/systemd/dbbackup.service" "$units/dbbackup.service"
  adapted "$here/systemd/dbbackup.timer" "$units/dbbackup.timer"
  adapted "$here/cron/dbbackup.cron" "$doc/dbbackup.cron"
  install -D -m 0755 "$here/tune-host.sh" "$libexec/tune-host.sh"
  install -D -m 0755 "$here/restore-chunked.sh" "$libexec/restore-chunked.sh"
  install -D -m 0755 "$here/decrypt-set.sh" "$libexec/decrypt-set.sh"
  install_config
  install_store
  reload_systemd
  printf 'installed %s\n' "$bin"
  printf 'next: edit %s, then systemctl enable --now dbbackup.timer\n' "$etc/config.yaml"
}

uninstall_all() {
  if [[ -z $destdir && $EUID -eq 0 && -d /run/systemd/system ]]; then
    systemctl disable --now dbbackup.timer 2>/dev/null || true
  fi
  rm -f "$bin" "$bash_completion" "$zsh_completion" \
    "$units/dbbackup.service" "$units/dbbackup.timer" \
    "$libexec/tune-host.sh" "$libexec/restore-chunked.sh" "$libexec/decrypt-set.sh" "$doc/dbbackup.cron" "$doc/config.example.yaml"
  local dir
  for dir in "$libexec" "$doc"; do
    if [[ -d $dir ]]; then rmdir --ignore-fail-on-non-empty "$dir"; fi
  done
  reload_systemd
  printf 'removed %s; %s and %s stay\n' "$bin" "$etc" "$store"
}

"${action}_all"
