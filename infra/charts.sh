#!/bin/sh
# Downloads the charts of infra/charts.yaml into a folder and refuses one of another digest: sh infra/charts.sh charts
set -eu
folder=${1:?the folder for the charts}
mkdir -p "$folder"
list=$(sed -nE 's/^ *(- )?(name|repository|version|sha256): //p' "$(dirname "$0")/charts.yaml" | paste -d ' ' - - - -)
echo "$list" | while read -r name repository version sha256; do
    file=$folder/$name-$version.tgz
    [ -f "$file" ] || helm pull "$name" --repo "$repository" --version "$version" --destination "$folder"
    echo "$sha256  $file" | sha256sum --check --quiet - || {
        rm -f "$file"
        echo "infra/charts.sh: $file has another digest than infra/charts.yaml and was removed; do not install it" >&2
        exit 1
    }
    echo "$file"
done
