# Completion for bash: source scripts/completions/mgpu-render.bash

_mgpu_render() {
  local word=${COMP_WORDS[COMP_CWORD]} command="" i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${COMP_WORDS[i]} in
      run | plan | validate | inspect | devices | sigmas | compare) command=${COMP_WORDS[i]} && break ;;
    esac
  done
  local flags="--help --version"
  case $command in
    "" | run) flags+=" --set --portable --json --only --part --resume --overwrite --preview --quiet --verbose --log" ;;
    plan) flags+=" --set --portable --json --devices" ;;
    validate) flags+=" --set --portable --json" ;;
    sigmas) flags+=" --set" ;;
    inspect | devices) flags+=" --json" ;;
    compare) flags+=" --json --difference" ;;
  esac
  local words=$flags
  [[ -z $command ]] && words+=" run plan validate inspect devices sigmas compare"
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  else
    [[ -n $command ]] && words=""
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word"; compgen -f -- "$word")
  fi
}
complete -o filenames -F _mgpu_render mgpu-render
