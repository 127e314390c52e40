#!/bin/sh
# Fuzzes each target for so many seconds, one after the other, and says for each what came out: run.sh SECONDS TARGET...
# New inputs are kept in target/fuzz/corpus, inputs that fail in target/fuzz/artifacts. Exit 1 where one failed.
set -eu
cd "$(dirname "$0")/../.."
seconds=$1
shift
base=target/fuzz
echo "==> building the fuzz targets (with AddressSanitizer and debug assertions)"
mkdir -p "$base"
cargo +nightly fuzz build --fuzz-dir native/fuzz --target-dir "$base" >"$base/build.log" 2>&1 || { cat "$base/build.log"; exit 1; }
failed=0
for target; do
	mkdir -p "$base/corpus/$target" "$base/artifacts/$target"
	seeds=native/fuzz/corpus-seed/$target
	[ -d "$seeds" ] || seeds=native/fuzz/corpus-seed/blocks
	log=$base/$target.log
	# The built program itself, so that one target's end is not another build.
	if "$base"/*/release/"$target" "$base/corpus/$target" "$seeds" -max_total_time="$seconds" -rss_limit_mb=2048 \
		-max_len=65536 -timeout=10 -print_final_stats=1 -artifact_prefix="$base/artifacts/$target/" >"$log" 2>&1; then
		result=fine
	else
		result="FAILED, see $log"
		failed=1
	fi
	awk -v target="$target" -v result="$result" '
		/ cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "ft:") ft = $(i + 1) } }
		/^stat::number_of_executed_units/ { runs = $2 }
		/^stat::slowest_unit_time_sec/ { slowest = $2 }
		/^stat::peak_rss_mb/ { peak = $2 }
		END { printf "%-14s %s: %s executions, coverage %s edges, %s features, slowest %s s, peak %s MB\n", target, result, runs, cov, ft, slowest, peak }
	' "$log"
done
exit "$failed"
